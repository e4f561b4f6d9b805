"""The page to upload a file of expected quantities."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from starlette.datastructures import UploadFile

from binwatch.errors import BinwatchError, OutageError
from binwatch.inventory.columns import ColumnNames
from binwatch.inventory.importing import import_file
from binwatch.safe_csv import unescape_formula
from monitor import formatting
from monitor.access.authentication import CurrentAuthenticator, ForeignForm, NotSignedIn
from monitor.access.negotiation import is_own_form
from monitor.access.uploads import MAX_FILE_BYTES, UPLOAD_PATH
from monitor.forms import FormProblem, redirect
from monitor.pages.flash import FlashMessages, problem_message
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import render
from monitor.services import CurrentServices, Services

router = APIRouter()

MAX_SHOWN_ROWS = 100
"""Maximum number of refused rows on the page."""
_FIELDS = ("csrf", "bin_column", "quantity_column", "article_column")
_MAX_FILE_NAME_LENGTH = 60
"""Maximum length of a file name in characters; file systems allow 255 bytes."""


@dataclass(frozen=True, slots=True)
class _UploadedFile:
    """A submitted form with its file."""

    name: str
    data: bytes
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Imported:
    """Result of an import."""

    lines: list[str]
    refused: list[dict[str, str]] = field(default_factory=list)
    """The first MAX_SHOWN_ROWS refused rows."""


async def _read_upload(request: Request) -> _UploadedFile:
    try:
        async with request.form(max_files=1, max_fields=len(_FIELDS)) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise HTTPException(400, "the form has no file")
            fields = {name: value for name in _FIELDS if isinstance(value := form.get(name), str)}
            return _UploadedFile(_safe_file_name(file.filename or ""), await file.read(), fields)
    except ValueError as error:
        raise HTTPException(400, "the form cannot be read") from error


@router.get(UPLOAD_PATH, response_class=HTMLResponse)
def expected(request: Request, context: RequestContext, flash: FlashMessages) -> HTMLResponse:
    """Show the upload form, or how to turn writing on."""
    return _render(request, context, flash)


@router.post(UPLOAD_PATH)
def upload(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    file: Annotated[_UploadedFile, Depends(_read_upload)],
) -> Response:
    """Import a file and show the result of each row. Importing the same file again changes nothing.

    Fields: file, csrf, bin_column, quantity_column, article_column.
    """
    try:
        authenticator.check_form(authenticator.require_writer(request), file.fields.get("csrf", ""))
    except (NotSignedIn, ForeignForm) as error:
        if not is_own_form(request):
            raise
        if isinstance(error, NotSignedIn):
            return redirect(request, "/login", problem=FormProblem.SIGNED_OUT, next=UPLOAD_PATH)
        return _render(request, context, problem_message(FormProblem.FOREIGN), status=403)
    try:
        imported = _import(services, file)
    except OutageError:
        raise
    except BinwatchError as error:
        return _render(request, context, problem_message(None), error=str(error), status=422)
    return _render(request, context, problem_message(None), imported)


def _render(
    request: Request,
    context: RequestContext,
    flash: FlashMessages,
    imported: Imported | None = None,
    error: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    return render(
        request,
        "expected.html",
        status,
        context=context,
        flash=flash,
        imported=imported,
        error=error,
        max_file=f"{MAX_FILE_BYTES // 2**20} MiB",
        max_refused=MAX_SHOWN_ROWS,
    )


def _import(services: Services, file: _UploadedFile) -> Imported:
    """Import a file. Raises BinwatchError, with a message that names the file without its temporary folder."""
    bin_, quantity, article = (file.fields.get(name, "").strip() or None for name in _FIELDS[1:])
    columns = ColumnNames(bin_, quantity, article)
    with TemporaryDirectory(prefix="binwatch-") as folder:
        path = Path(folder, file.name)
        path.write_bytes(file.data)
        bucket = services.settings.bucket

        def without_folder(text: str) -> str:
            return text.replace(f"{folder}/", "")

        try:
            report = services.writable.write(lambda engine: import_file(path, engine, bucket, names=columns))
        except OutageError:
            raise
        except BinwatchError as error:
            raise BinwatchError(without_folder(str(error))) from error
        lines = without_folder(formatting.imported(report, listed=False)).split("\n")
        if report.refused_file is None:
            return Imported(lines)
        with report.refused_file.open(encoding="utf-8", newline="") as refused_file:
            rows = islice(csv.DictReader(refused_file), MAX_SHOWN_ROWS)
            return Imported(lines, [{name: unescape_formula(cell) for name, cell in row.items()} for row in rows])


def _safe_file_name(name: str) -> str:
    """Return the last part of a path as a file name that is valid in every folder."""
    name = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(character for character in name if character.isprintable())
    return printable[-_MAX_FILE_NAME_LENGTH:].strip(". ") or "upload"
