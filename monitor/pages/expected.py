"""Expected quantities from a file that somebody who may write uploads."""

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
from binwatch.safe_csv import original
from monitor import formatting
from monitor.access.authentication import CurrentAuthenticator, ForeignForm, NotSignedIn
from monitor.access.negotiation import sent_a_form
from monitor.access.uploads import MAX_FILE, PATH
from monitor.forms import FormProblem, go
from monitor.pages.flash import FlashMessages, failed
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import html
from monitor.services import CurrentServices, Services

router = APIRouter()

SHOWN = 100
"""Refused rows that the page shows."""
_FIELDS = ("csrf", "bin_column", "quantity_column", "article_column")
_LONGEST_NAME = 60
"""Characters; a file's name has 255 bytes at most."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A form with a file."""

    name: str
    data: bytes
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file."""

    lines: list[str]
    refused: list[dict[str, str]] = field(default_factory=list)
    """The first SHOWN refused rows."""


async def _sent(request: Request) -> _Sent:
    try:
        async with request.form(max_files=1, max_fields=len(_FIELDS)) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise HTTPException(400, "the form has no file")
            fields = {name: value for name in _FIELDS if isinstance(value := form.get(name), str)}
            return _Sent(_plain(file.filename or ""), await file.read(), fields)
    except ValueError as error:
        raise HTTPException(400, "the form cannot be read") from error


@router.get(PATH, response_class=HTMLResponse)
def expected(request: Request, context: RequestContext, flash: FlashMessages) -> HTMLResponse:
    """The form for a file, or how to turn writing on."""
    return _page(request, context, flash)


@router.post(PATH)
def upload(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    sent: Annotated[_Sent, Depends(_sent)],
) -> Response:
    """Fields file, csrf, and names of columns. The answer says what became of each row; sent again, nothing changes."""
    try:
        authenticator.check_form(authenticator.require_writer(request), sent.fields.get("csrf", ""))
    except (NotSignedIn, ForeignForm) as error:
        if not sent_a_form(request):
            raise
        if isinstance(error, NotSignedIn):
            return go(request, "/login", problem=FormProblem.SIGNED_OUT, next=PATH)
        return _page(request, context, failed(FormProblem.FOREIGN), status=403)
    try:
        imported, error_, status = _import(services, sent), None, 200
    except OutageError:
        raise
    except BinwatchError as error:
        imported, error_, status = None, str(error), 422
    return _page(request, context, failed(None), imported, error_, status)


def _page(
    request: Request,
    context: RequestContext,
    flash: FlashMessages,
    imported: Imported | None = None,
    error: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    limits = {"max_file": f"{MAX_FILE // 2**20} MiB", "max_refused": SHOWN}
    return html(
        request,
        "expected.html",
        status,
        context=context,
        flash=flash,
        imported=imported,
        error=error,
        **limits,
    )


def _import(services: Services, sent: _Sent) -> Imported:
    """Raises BinwatchError, whose message has the file's own name."""
    bin_, quantity, article = (sent.fields.get(name, "").strip() or None for name in _FIELDS[1:])
    named = ColumnNames(bin_, quantity, article)
    with TemporaryDirectory(prefix="binwatch-") as folder:
        file = Path(folder, sent.name)
        file.write_bytes(sent.data)
        bucket = services.settings.bucket

        def without_folder(text: str) -> str:
            return text.replace(f"{folder}/", "")

        try:
            report = services.writable.write(lambda engine: import_file(file, engine, bucket, names=named))
        except OutageError:
            raise
        except BinwatchError as error:
            raise BinwatchError(without_folder(str(error))) from error
        lines = without_folder(formatting.imported(report, listed=False)).split("\n")
        if report.refused_file is None:
            return Imported(lines)
        with report.refused_file.open(encoding="utf-8", newline="") as opened:
            rows = islice(csv.DictReader(opened), SHOWN)
            return Imported(lines, [{name: original(cell) for name, cell in row.items()} for row in rows])


def _plain(name: str) -> str:
    """A file name that is valid in every folder."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in last if character.isprintable())[-_LONGEST_NAME:].strip(". ") or "upload"
