"""Reads: single objects, pages of listings, watches, and where a container's output is."""

from __future__ import annotations

import base64
import json

from lamina_kit.errors import FailedPrecondition, InvalidArgument, NotFound, OutOfRange
from lamina_orchestrator.domain.kinds.kinds import POD, Kind
from lamina_orchestrator.domain.kinds.plain_object import Object, name_of, parse_path, revision_of, spec_of, uid_of
from lamina_orchestrator.domain.objects.selectors import parse_field_selector, parse_label_selector
from lamina_orchestrator.domain.pods.record import PodRecord
from lamina_orchestrator.engines.interface import Listing, LogSource, Query, Record, Stored
from lamina_orchestrator.engines.model.api.registry import Registry, stored
from lamina_orchestrator.engines.model.nodes.links import NodeLinks
from lamina_orchestrator.engines.model.nodes.pod_workers import PodWorkers
from lamina_orchestrator.engines.model.state.feed import FeedCursor, Filter
from lamina_orchestrator.engines.model.state.ledger import Ledger

MAX_TOKEN = 1024


class Queries:
    """Reads of callers."""

    def __init__(self, ledger: Ledger, registry: Registry, links: NodeLinks, workers: PodWorkers) -> None:
        self._ledger = ledger
        self._registry = registry
        self._links = links
        self._workers = workers

    def get(self, kind: Kind, namespace: str, name: str, now_ns: int) -> Stored:
        """One object in its newest version."""
        _, obj = self._registry.find(kind, namespace, name)
        return stored(self._links.renewed(obj, now_ns))

    def page(self, query: Query, limit: int, token: str, now_ns: int) -> Listing:
        """A page of a listing; all pages show the revision of the first."""
        shown = _filter(query)
        prefix = f"{query.kind.resource}/" + (f"{query.namespace}/" if query.namespace else "")
        revision, after = _position(token, prefix) if token else (self._ledger.store.revision, "")
        found: list[Stored] = []
        while len(found) < limit:
            wanted = limit - len(found)
            records = self._ledger.store.list(prefix, revision=revision, after=after, limit=wanted)
            for record in records:
                one = self._shown(record, shown, now_ns)
                if one is not None:
                    found.append(one)
            if len(records) < wanted:
                return Listing(tuple(found), "", revision)
            after = records[-1].path
        more = self._ledger.store.list(prefix, revision=revision, after=after, limit=1)
        return Listing(tuple(found), _token(revision, after) if more else "", revision)

    def _shown(self, record: Record, shown: Filter, now_ns: int) -> Stored | None:
        key = parse_path(record.path)
        obj = self._ledger.cache.get(key)
        if obj is None or revision_of(obj) != record.revision:
            obj = json.loads(record.value)
        assert obj is not None
        if not shown.matches(key, obj):
            return None
        now = self._links.renewed(obj, now_ns)
        return Stored(obj, record.value) if now is obj else stored(now)

    def watch(self, query: Query, revision: int, initial: bool, bookmarks: bool) -> FeedCursor:
        """Begins a watch behind a revision (0: the newest)."""
        shown = _filter(query)
        feed = self._ledger.feed
        if initial and revision:
            raise InvalidArgument(
                "send_initial_events starts at the newest revision and takes no resource_version.",
                reason="REQUEST_INVALID",
                next_step="Leave one of the two out.",
            )
        if revision > feed.revision:
            raise OutOfRange(
                f"Revision {revision} does not exist yet; the newest is {feed.revision}.",
                reason="REVISION_FUTURE",
                next_step="List again, and watch from the list's resource version.",
            )
        if revision and revision < self._ledger.store.compacted:
            self._ledger.store.changes(revision, 1)  # says that it is compacted
        first = [stored(obj) for obj in self._matching(shown)] if initial else None
        return FeedCursor(feed, shown, revision or feed.revision, first, bookmarks)

    def _matching(self, shown: Filter) -> list[Object]:
        objects = self._ledger.cache.of_kind(shown.kind)
        return [obj for obj in objects if shown.matches(shown.kind.key(_namespace(obj), name_of(obj)), obj)]

    def log_source(self, namespace: str, name: str, container: str, previous: bool) -> LogSource:
        """Where the output of a container is; see the contract's ReadPodLogs for what it refuses."""
        _, pod = self._registry.find(POD, namespace, name)
        worker = self._workers.worker(uid_of(pod))
        chosen = _container(pod, container)
        run = _run(worker.record, chosen, previous) if worker is not None else None
        if worker is None or run is None:
            reason = "NO_PREVIOUS_CONTAINER" if previous else "CONTAINER_NOT_STARTED"
            what = "has no earlier run whose output is kept" if previous else "has not started"
            raise FailedPrecondition(
                f'Container "{chosen}" of pod "{name[:100]}" {what}.',
                reason=reason,
                next_step="Look at the pod's status for what it waits for.",
            )
        return LogSource(worker.node, run)


def _run(record: PodRecord, container: str, previous: bool) -> str | None:
    known = record.container(container)
    run = known.previous if previous else known.current
    return run.name if run is not None else None


def _container(pod: Object, wanted: str) -> str:
    names = [part["name"] for part in spec_of(pod)["containers"]]
    every = [*names, *(part["name"] for part in spec_of(pod).get("initContainers") or [])]
    if wanted and wanted not in every:
        raise NotFound(
            f'Pod "{name_of(pod)}" has no container "{wanted[:64]}".',
            reason="CONTAINER_NOT_FOUND",
            next_step=f"Its containers are {', '.join(every)}.",
        )
    if not wanted and len(names) > 1:
        raise InvalidArgument(
            f'Pod "{name_of(pod)}" has several containers.',
            reason="CONTAINER_REQUIRED",
            next_step=f"Name one of {', '.join(every)}.",
        )
    return wanted or names[0]


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", ""))


def _filter(query: Query) -> Filter:
    fields = parse_field_selector(query.fields, query.kind)
    return Filter(query.kind, query.namespace, parse_label_selector(query.labels), fields)


def _token(revision: int, after: str) -> str:
    return base64.urlsafe_b64encode(f"{revision} {after}".encode()).decode()


def _position(token: str, prefix: str) -> tuple[int, str]:
    malformed = InvalidArgument(
        "The page_token was not issued for this listing.",
        reason="PAGE_TOKEN_INVALID",
        next_step="Send the next_page_token of the page before, with the same other fields.",
    )
    if len(token) > MAX_TOKEN:
        raise malformed
    try:
        revision, _, after = base64.urlsafe_b64decode(token.encode()).decode().partition(" ")
    except ValueError as error:
        raise malformed from error
    if not (revision.isascii() and revision.isdigit() and len(revision) < 19 and after.startswith(prefix)):
        raise malformed
    return int(revision), after
