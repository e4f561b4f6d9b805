"""Audits as JSON: the queue, a bin without its numbers, entering an audit, and the list of all audits."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from binwatch.keys import normalise_bin_id
from binwatch.records.audits import MAX_NAME_LENGTH, AuditAnswer, clean_name
from binwatch.records.repeats import next_bin_to_audit
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
from monitor.api.parameters import MAX_BIN_ID_LENGTH, BinId, Bucket
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
    """Filters of the queue of bins to audit."""

    since: AwareDatetime | None = Field(None, description="only photos stored at or after this time")
    until: AwareDatetime | None = Field(None, description="only photos stored before this time")
    prefix: str | None = Field(
        None, max_length=MAX_PREFIX_LENGTH, description="prefix of the bin's id or of the photo's key"
    )
    answer: Literal[AuditAnswer.CANNOT_TELL, AuditAnswer.GO_AND_COUNT] | None = Field(
        None, description="only bins whose last audit has this answer; default: only bins without an audit"
    )
    recount: bool = Field(False, description="only bins with an open variance, which another person has to recount")
    auditor: str | None = Field(
        None,
        max_length=MAX_NAME_LENGTH,
        description="name of the person who recounts; ignored if the request has a user",
    )
    limit: int = Field(50, ge=1, le=MAX_PAGE_SIZE, description="maximum number of bins")

    @property
    def filters(self) -> Filters:
        """The query as filters of the list of bins."""
        variance = VarianceState.OPEN if self.recount else None
        return Filters(**self.model_dump(include={"since", "until", "prefix", "answer"}), variance=variance)


class Queue(BaseModel):
    """Bins that wait for an audit, most suspicious first. An audited bin leaves the queue."""

    items: list[QueuedBin]


class BinToAudit(BlindBin):
    """A bin to audit, without its numbers."""

    view: str
    """Token to send back with the answer and `photo.id`; an audit without it is not blind."""
    blind: bool
    """Whether the answer will be recorded as blind; false if the browser has been shown the bin's numbers."""


_AUDIT_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "the body is not text"},
    401: {"model": Problem, "description": "neither a token nor a session was sent"},
    403: {"model": Problem, "description": "entering audits is off, or another site sent the request"},
    404: {"model": Problem, "description": "the bin is unknown"},
    409: {"model": Problem, "description": "a newer photo of the bin has arrived"},
    413: {"model": Problem, "description": "the body is too large"},
    200: {"model": SavedAudit, "description": "an identical audit was recorded before"},
}
_DECISION_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **{status: _AUDIT_RESPONSES[status] for status in (400, 401, 413)},
    403: {"model": Problem, "description": "the user is not an approver, has counted the bin, or audits blind"},
    404: {"model": Problem, "description": "the variance is unknown"},
    409: {"model": Problem, "description": "the variance has been decided, or its quantity has changed"},
}
_AUTH_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {status: _AUDIT_RESPONSES[status] for status in (401, 403)}


@router.get("/audit/queue", responses=_AUTH_RESPONSES)
def queue(services: CurrentServices, writer: CurrentWriter, query: Annotated[QueueQuery, Query()]) -> Queue:
    """Bins to audit, without their numbers. Requires the token."""
    filters, alpha = waiting_for_audit(query.filters, writer.name or query.auditor), services.settings.flag_level
    return Queue(items=services.records.read(lambda connection: read_queue(connection, filters, alpha, query.limit)))


@router.get("/audit", responses=_AUTH_RESPONSES | {404: _AUDIT_RESPONSES[404]})
def view(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    writer: CurrentWriter,
    id: BinId,
    bucket: Bucket = None,
) -> BinToAudit:
    """A bin to audit: its photo and the names of its articles, without its numbers. Requires the token."""
    bucket = bucket or services.settings.bucket
    bin_ = without_numbers(services.records.read(lambda connection: read_bin(connection, bucket, id, 0.0)))
    photo = bin_.photo.id if bin_.photo else None
    return BinToAudit(
        **bin_.model_dump(),
        view=authenticator.view_token(writer, bucket, bin_.bin_id, photo),
        blind=authenticator.sight_tracker.may_audit_blind(request, bucket, bin_.bin_id),
    )


class DrawnPhoto(BaseModel):
    """A bin drawn at random, without its numbers."""

    bucket: str
    bin: str
    photo: int
    """Id of the photo to audit."""


@router.post(
    "/audits/next",
    status_code=201,
    responses=_AUTH_RESPONSES | {404: {"model": Problem, "description": "there is no bin to draw"}},
)
def draw_next(
    services: CurrentServices,
    access: CurrentAccess,
    writer: CurrentWriter,
    by_doubt: Annotated[
        bool, Query(description="draw bins up to twice as often if the model finds their recorded quantity less likely")
    ] = False,
    auditor: Annotated[
        str | None,
        Query(max_length=MAX_NAME_LENGTH, description="name of the auditor, for scripts; without it, no bin is a test"),
        AfterValidator(clean_name),
    ] = None,
    skip: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=MAX_BIN_ID_LENGTH,
            description="id of a bin drawn before; its draw stays open, and another bin is returned",
        ),
    ] = None,
    bucket: Bucket = None,
) -> DrawnPhoto:
    """A bin drawn at random. Audits of these bins measure how often counts and inventory are right over all bins.

    A bin that was drawn a while ago and not audited is returned again. A share of the bins (BINWATCH_AUDIT_REPEATS) is
    not drawn at random, but tests the auditor: somebody else has audited them, or their quantity is known. Read the bin
    with `GET /api/audit`. Requires the token.
    """
    repeats = 0.0 if access.sighted or access.sight is Sight.SHOWN else services.settings.audit_repeats
    name, skipped = writer.name or auditor, None
    if skip is not None:
        skipped = (bucket or services.settings.bucket, normalise_bin_id(skip))
    bin_ = services.writable.write(
        lambda engine: next_bin_to_audit(engine, name, repeats, by_doubt=by_doubt, skipped=skipped)
    )
    return DrawnPhoto(bucket=bin_.bucket, bin=bin_.bin_id, photo=bin_.count_id)


@router.post("/audits", status_code=201, responses=_AUDIT_RESPONSES)
def enter(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    writer: CurrentWriter,
    audit: NewAudit,
    response: Response,
) -> SavedAudit:
    """Record what a bin really contains. A later audit of the same photo corrects an earlier one.

    The audit is blind if it sends the `view` of `GET /api/audit`; without it, it is recorded as sighted.

    Requires `Authorization: Bearer` with the value of BINWATCH_MONITOR_TOKEN.
    """
    bucket = services.settings.bucket
    blind = was_blind(request, authenticator, writer, audit, bucket)
    saved = save(services.writable, audit, writer, services.settings, blind=blind)
    if not saved.is_new:
        response.status_code = 200
    return saved


@router.post("/variances/{variance_id}", responses=_DECISION_RESPONSES, dependencies=[ShowsNumbers])
def decide_on_variance(
    services: CurrentServices,
    writer: CurrentApprover,
    variance_id: Annotated[int, Path(ge=1, le=MAX_ID)],
    decision: NewDecision,
) -> SavedDecision:
    """Approve the quantity of a variance, or reject the variance. `GET /api/lists/variances` lists them.

    Requires `Authorization: Bearer` with the value of BINWATCH_MONITOR_APPROVER_TOKEN; scripts also send `approver`.
    """
    approver = writer.name or decision.approver
    if approver is None:
        raise NoName
    return save_decision(services.writable, variance_id, decision, approver)


@router.get("/audits", dependencies=[ShowsNumbers])
def audits(
    services: CurrentServices,
    limit: Annotated[int, Query(ge=1, le=500, description="maximum number of audits")] = 100,
    after: Annotated[int | None, Query(ge=1, le=MAX_ID, description="`next` of the previous response")] = None,
) -> AuditList:
    """All audits, newest first."""
    return services.records.read(lambda connection: read_audits(connection, limit, after))


@router.get(
    "/auditors",
    responses={403: {"model": Problem, "description": "not an approver"}},
    dependencies=[Supervisor],
)
def auditors(services: CurrentServices) -> Auditors:
    """Accuracy of each auditor. Requires `Authorization: Bearer` with the value of BINWATCH_MONITOR_APPROVER_TOKEN."""
    return services.records.read(read_auditors)
