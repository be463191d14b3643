"""PanDA over HTTP (v1), as a submitter sees it: one session, every answer checked, failures as values."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import requests
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

from prodsys_core import pickles, wire
from prodsys_core.chunks import in_chunks
from prodsys_core.config import X509, Oidc, Panda
from prodsys_core.ports import Broken, Description, Failure, JobSink, PandaJob, Unavailable
from prodsys_core.settings.build import read_secret

Value = TypeVar("Value")
CONNECT_S = 10.0
"""A server that does not take a connection within this time is down."""


class HttpJobSink(JobSink):
    """JobSink over v1, where configured with submission by pickles. Not for several threads at once. `session`: what
    carries the requests. Long lists of ids are asked for in calls of `status_chunk` or `record_chunk`."""

    def __init__(self, panda: Panda, session: requests.Session | None = None) -> None:
        self._panda = panda
        self._session = session or requests.Session()
        self._session.trust_env = False  # no proxy of the environment between us and the server
        self._session.headers["Accept"] = "application/json"

    def alive(self) -> bool | Failure:
        return _then(self._call("GET", "system/is_alive"), lambda _: True)

    def submit(self, jobs: Sequence[PandaJob]) -> Mapping[str, int | None] | Failure:
        """One call; the caller has cut the jobs to `submit_chunk`."""
        records = [wire.positional(job) for job in jobs]
        if self._panda.legacy_package is None:
            answer = self._call("POST", "job/submit", json={"jobs": json.dumps(records)})
            return _then(answer, wire.parse_submitted)
        text = pickles.render_pickle(records, self._panda.legacy_package)
        return self._pickled("submitJobs", {"jobs": text}, pickles.parse_pickled_answer)

    def job_ids(self, batch_number: int) -> tuple[int, ...] | Failure:
        return _then(self._call("GET", "task/get_job_ids", params={"task_id": batch_number}), wire.parse_ids)

    def statuses(self, ids: Sequence[int]) -> Mapping[int, str] | Failure:
        ask = partial(self._of_ids, "GET", "job/get_status", "params")
        return _collect(ids, self._panda.status_chunk, ask, wire.parse_statuses)

    def descriptions(self, ids: Sequence[int]) -> Mapping[int, Description] | Failure:
        """Ids that were not asked for are dropped."""
        ask = partial(self._of_ids, "POST", "job/get_description_incl_archive", "json")
        return _collect(ids, self._panda.record_chunk, ask, lambda _, data: wire.parse_descriptions(data))

    def cancel(self, ids: Sequence[int]) -> Mapping[int, bool] | Failure:
        ask = partial(self._of_ids, "POST", "job/kill", "json")
        return _collect(ids, self._panda.status_chunk, ask, wire.parse_cancelled)

    def _of_ids(self, method: str, call: str, place: str, ids: Sequence[int]) -> Any | Failure:
        return self._call(method, call, **{place: {"job_ids": list(ids)}})

    def _pickled(
        self, call: str, form: Mapping[str, str], parse: Callable[[int, bytes], Value | Failure]
    ) -> Value | Failure:
        """One call that is answered with a pickle."""
        answer = self._request("POST", f"server/panda/{call}", data=form, headers={"Accept": "*/*"})
        return answer if isinstance(answer, Unavailable) else parse(answer.status_code, answer.content)

    def _call(self, method: str, call: str, **arguments: Any) -> Any | Failure:
        answer = self._request(method, f"api/v1/{call}", **arguments)
        return _then(answer, lambda reply: wire.parse_envelope(reply.status_code, reply.text))

    def _request(self, method: str, path: str, **arguments: Any) -> requests.Response | Unavailable:
        """One request, never repeated by itself: a repeated submission would be a second one."""
        more = self._credentials()
        more["headers"] = more.get("headers", {}) | arguments.pop("headers", {})
        more |= {"timeout": (CONNECT_S, self._panda.timeout_s), "allow_redirects": False}
        try:  # the whole body is read in here, too
            return self._session.request(method, f"{self._panda.url}/{path}", **arguments, **more)
        except requests.RequestException as error:
            if _never_connected(error):
                return Unavailable(f"no connection to {self._panda.url}", reached=False)
            return Unavailable(f"{path}: {type(error).__name__}: {error}"[:300])

    def _credentials(self) -> dict[str, Any]:
        match self._panda.credentials:
            case X509(proxy=proxy, ca_bundle=bundle):
                return {"cert": proxy, "verify": bundle or True}
            case Oidc(token_file=token_file, origin=origin, ca_bundle=bundle):
                headers = {"Authorization": f"Bearer {read_secret(token_file)}", "Origin": origin}
                return {"headers": headers, "verify": bundle or True}
            case None:
                return {}


class LegacyJobSink(HttpJobSink):
    """JobSink over the calls that servers had before v1; what they tell means the same. Statuses: only of jobs that are
    not in the archive, "unknown" of all others."""

    def alive(self) -> bool | Failure:
        answer = self._request("GET", "server/panda/isAlive")
        if isinstance(answer, Unavailable):
            return answer
        return "alive=yes" in answer.text or Unavailable(f"isAlive: HTTP {answer.status_code}")

    def job_ids(self, batch_number: int) -> tuple[int, ...] | Failure:
        form = {"jediTaskID": str(batch_number)}
        return _then(self._pickled("getPandaIDsWithTaskID", form, pickles.load_answer), wire.parse_ids)

    def statuses(self, ids: Sequence[int]) -> Mapping[int, str] | Failure:
        def parse(part: Sequence[int], records: Any) -> dict[int, str] | Broken:
            statuses = [{"status": (item or {}).get("jobStatus", "unknown")} for item in records]
            return wire.parse_statuses(part, statuses)

        ask = partial(self._pickled_ids, "getJobStatus", pickles.parse_pickled_records)
        return _collect(ids, self._panda.record_chunk, ask, parse)

    def descriptions(self, ids: Sequence[int]) -> Mapping[int, Description] | Failure:
        ask = partial(self._pickled_ids, "getFullJobStatus", pickles.parse_pickled_records)
        return _collect(ids, self._panda.record_chunk, ask, lambda _, answer: wire.parse_descriptions(answer))

    def cancel(self, ids: Sequence[int]) -> Mapping[int, bool] | Failure:
        ask = partial(self._pickled_ids, "killJobs", pickles.load_answer)
        return _collect(ids, self._panda.record_chunk, ask, wire.parse_cancelled)

    def _pickled_ids(
        self, call: str, parse: Callable[[int, bytes], Any], ids: Sequence[int]
    ) -> Any | Failure:
        return self._pickled(call, {"ids": pickles.render_ids(ids)}, parse)


def open_sink(panda: Panda) -> HttpJobSink:
    """The server that is configured: one that reads pickles of `taskbuffer` is older than v1."""
    return (LegacyJobSink if panda.legacy_package == "taskbuffer" else HttpJobSink)(panda)


def _never_connected(error: requests.RequestException) -> bool:
    """No connection was made, so the server cannot have seen the request."""
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)


def _then(answer: Any | Failure, parse: Callable[[Any], Value | Broken]) -> Value | Failure:
    return answer if isinstance(answer, Failure) else parse(answer)


def _collect(
    ids: Sequence[int],
    size: int,
    ask: Callable[[Sequence[int]], Any | Failure],
    parse: Callable[[Sequence[int], Any], dict[int, Value] | Broken],
) -> dict[int, Value] | Failure:
    """Answers of several calls; what is known is kept when a later call fails, the first failure is all of it."""
    known: dict[int, Value] = {}
    for part in in_chunks(ids, size):
        answer = _then(ask(part), partial(parse, part))
        if isinstance(answer, Failure):
            return known or answer
        known.update({panda_id: answer[panda_id] for panda_id in part if panda_id in answer})
    return known
