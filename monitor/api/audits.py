"""Audits as JSON: the queue, a bin without its numbers, entering an audit, and the list of all."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from binwatch.keys import bin_id as one_bin_id
from binwatch.records.audits import MAX_NAME, AuditAnswer, plain_name
from binwatch.records.repeats import next_bin
from binwatch.records.variances import VarianceState
from monitor.access.authentication import (
    CurrentAccess,
    CurrentApprover,
    CurrentAuthenticator,
    CurrentWriter,
    NoName,
    ShowsNumbers,
    Supervisor,
)
from monitor.access.sight import Sight
from monitor.api.parameters import MAX_BIN, BinId, Bucket
from monitor.api.problem import Problem
from monitor.auditing import (
    AuditList,
    NewAudit,
    NewDecision,
    SavedAudit,
    SavedDecision,
    read_audits,
    save,
    save_decision,
    was_blind,
)
from monitor.records import MAX_ID
from monitor.services import CurrentServices
from monitor.views.auditors import Auditors, read_auditors
from monitor.views.bins import read_bin
from monitor.views.blind import BlindBin, QueuedBin, read_queue, without_numbers
from monitor.views.discrepancies import MAX_PAGE_SIZE, MAX_PREFIX_LENGTH, Filters, waiting_for_audit

router = APIRouter(prefix="/api", tags=["audits"], responses={503: {"model": Problem}})


class QueueQuery(BaseModel):
    """Which bins wait for an audit."""

    since: AwareDatetime | None = Field(None, description="only photos that were stored at this time or later")
    until: AwareDatetime | None = Field(None, description="only photos that were stored before this time")
    prefix: str | None = Field(
        None, max_length=MAX_PREFIX_LENGTH, description="how the bin's id, or the photo's key, begins"
    )
    answer: Literal[AuditAnswer.CANNOT_TELL, AuditAnswer.GO_AND_COUNT] | None = Field(
        None, description="bins whose last audit has this answer; default: bins without an audit"
    )
    recount: bool = Field(False, description="bins with an open variance, which another person has to count again")
    auditor: str | None = Field(
        None, max_length=MAX_NAME, description="who is to count again; a user who is signed in with a name is meant"
    )
    limit: int = Field(50, ge=1, le=MAX_PAGE_SIZE, description="bins in the answer at most")

    @property
    def filters(self) -> Filters:
        """The filters of the views."""
        variance = VarianceState.OPEN if self.recount else None
        return Filters(**self.model_dump(include={"since", "until", "prefix", "answer"}), variance=variance)


class Queue(BaseModel):
    """Bins that wait for an audit, the one with the oddest photo first. An audited bin leaves the queue."""

    items: list[QueuedBin]


class BinToAudit(BlindBin):
    """A bin without its numbers."""

    view: str
    """Token to send back with the answer, and with `photo.id`: only with it, an audit can be blind."""
    blind: bool
    """Whether the answer will be recorded as blind; false to a browser that was shown the bin's numbers."""


_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "a body that is not text"},
    401: {"model": Problem, "description": "no token, no session"},
    403: {"model": Problem, "description": "entering audits is off, or another site sent the request"},
    404: {"model": Problem, "description": "nothing is recorded of such a bin"},
    409: {"model": Problem, "description": "a newer photo of the bin has arrived"},
    413: {"model": Problem, "description": "the body is too large"},
    200: {"model": SavedAudit, "description": "it was recorded before, word for word"},
}


_UNDECIDED: Final[dict[int | str, dict[str, Any]]] = {
    **{status: _REFUSED[status] for status in (400, 401, 413)},
    403: {"model": Problem, "description": "not an approver, or one who has counted the bin or audits blind"},
    404: {"model": Problem, "description": "there is no such variance"},
    409: {"model": Problem, "description": "it was decided on already, or its number has changed"},
}
_NOT_SIGNED_IN: Final[dict[int | str, dict[str, Any]]] = {status: _REFUSED[status] for status in (401, 403)}


@router.get("/audit/queue", responses=_NOT_SIGNED_IN)
def queue(services: CurrentServices, writer: CurrentWriter, asked: Annotated[QueueQuery, Query()]) -> Queue:
    """Bins to audit, without any number. Needs the token, as entering audits does."""
    filters, alpha = waiting_for_audit(asked.filters, writer.name or asked.auditor), services.settings.flag_level
    return Queue(items=services.records.read(lambda connection: read_queue(connection, filters, alpha, asked.limit)))


@router.get("/audit", responses=_NOT_SIGNED_IN | {404: _REFUSED[404]})
def view(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    writer: CurrentWriter,
    id: BinId,
    bucket: Bucket = None,
) -> BinToAudit:
    """A bin to audit: its photo and the names of its articles, without any number. Needs the token."""
    of = bucket or services.settings.bucket
    bin_ = without_numbers(services.records.read(lambda connection: read_bin(connection, of, id, 0.0)))
    photo = bin_.photo.id if bin_.photo else None
    return BinToAudit(
        **bin_.model_dump(),
        view=authenticator.view_token(writer, of, bin_.bin_id, photo),
        blind=authenticator.sights.was_blind(request, of, bin_.bin_id),
    )


class DrawnPhoto(BaseModel):
    """A bin that was drawn, and nothing that would tell what was counted."""

    bucket: str
    bin: str
    photo: int
    """Id of the photo to be looked at."""


@router.post(
    "/audits/next",
    status_code=201,
    responses=_NOT_SIGNED_IN | {404: {"model": Problem, "description": "there is no bin to draw"}},
)
def draw_next(
    services: CurrentServices,
    access: CurrentAccess,
    writer: CurrentWriter,
    by_doubt: Annotated[
        bool, Query(description="draw bins up to twice as often where the model gives less to what is recorded")
    ] = False,
    auditor: Annotated[
        str | None,
        Query(max_length=MAX_NAME, description="who will count, of a script: without a name, no bin tests the auditor"),
        AfterValidator(plain_name),
    ] = None,
    skip: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=MAX_BIN,
            description="id of the bin that was given before and is passed over: its draw stays open, and another bin"
            " is given",
        ),
    ] = None,
    bucket: Bucket = None,
) -> DrawnPhoto:
    """A bin drawn at random: from audits of such bins follows how often counts and inventory are right, of all bins.

    A bin that was drawn a while ago and not audited is drawn again. A share (BINWATCH_AUDIT_REPEATS) is no draw, but a
    bin that somebody else has audited, or whose quantity is known. `GET /api/audit` shows the bin. Needs the token.
    """
    repeats = 0.0 if access.sighted or access.sight is Sight.SHOWN else services.settings.audit_repeats
    name, skipped = writer.name or auditor, None
    if skip is not None:
        skipped = (bucket or services.settings.bucket, one_bin_id(skip))
    drawn = services.writable.write(lambda engine: next_bin(engine, name, repeats, by_doubt=by_doubt, skipped=skipped))
    return DrawnPhoto(bucket=drawn.bucket, bin=drawn.bin_id, photo=drawn.count_id)


@router.post("/audits", status_code=201, responses=_REFUSED)
def enter(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    writer: CurrentWriter,
    audit: NewAudit,
    response: Response,
) -> SavedAudit:
    """Record what is really in a bin. Corrections are entered the same way: the last one counts.

    With the `view` of `GET /api/audit`, the audit is blind; without it, it counts as made with the numbers in sight.

    Needs `Authorization: Bearer` with the value of BINWATCH_MONITOR_TOKEN.
    """
    bucket = services.settings.bucket
    blind = was_blind(request, authenticator, writer, audit, bucket)
    saved = save(services.writable, audit, writer, services.settings, blind=blind)
    if not saved.is_new:
        response.status_code = 200
    return saved


@router.post("/variances/{variance_id}", responses=_UNDECIDED, dependencies=[ShowsNumbers])
def decide_on_variance(
    services: CurrentServices,
    writer: CurrentApprover,
    variance_id: Annotated[int, Path(ge=1, le=MAX_ID)],
    decision: NewDecision,
) -> SavedDecision:
    """Approve the number of a variance, or reject the variance. `GET /api/lists/variances` lists them.

    Needs `Authorization: Bearer` with the value of BINWATCH_MONITOR_APPROVER_TOKEN, and then `approver`.
    """
    approver = writer.name or decision.approver
    if approver is None:
        raise NoName
    return save_decision(services.writable, variance_id, decision, approver)


@router.get("/audits", dependencies=[ShowsNumbers])
def audits(
    services: CurrentServices,
    limit: Annotated[int, Query(ge=1, le=500, description="audits in the answer at most")] = 100,
    after: Annotated[int | None, Query(ge=1, le=MAX_ID, description="`next` of an earlier answer")] = None,
) -> AuditList:
    """Every audit, the newest first."""
    return services.records.read(lambda connection: read_audits(connection, limit, after))


@router.get(
    "/auditors",
    responses={403: {"model": Problem, "description": "not an approver"}},
    dependencies=[Supervisor],
)
def auditors(services: CurrentServices) -> Auditors:
    """How often each auditor is right. Needs `Authorization: Bearer` with BINWATCH_MONITOR_APPROVER_TOKEN."""
    return services.records.read(read_auditors)
