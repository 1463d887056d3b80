"""What schemathesis has to know besides the document. As a program, it fills a Signalpost with things to ask for.

Of requests that fit the document, ids that are made up are replaced by those of things that are there, and what would only be
refused is taken out: else nearly all answers were 404 and 422. And some rules cannot be told by JSON Schema, which schemathesis
would take as requests that fit the document and are refused all the same: those are listed, each with its reason. Every other
refusal of a request that fits is a failure, as is every other check.
"""

import itertools
import json
import os
import sys
import time

KEY = {"Authorization": "Bearer " + os.environ["CHECKED_KEY"]}
URL = os.environ["CHECKED_URL"]
SEED = os.environ["CHECKED_SEED"]
MANY = 60

# Of a query: the start of what the problem says.
QUERIES = (
    "`cursor` is not one of this list",  # a cursor was in an answer of before, bound to filters and order
    "`destination_id` is neither the id nor the uid",  # nor is there a destination with that uid
    "`limit` must be a number from 1 to 20",  # with `include=data`
    "`since`",  # is before `until`, and after what is kept
    "`until`",
    "The query holds a NUL",
)
# Of a body: where, and the start of what is said of it.
RULES = (
    ("uid", "must not be shaped like an id"),
    ("uid", "cannot be changed"),
    ("id", "must not be shaped like an id"),  # of a CloudEvent
    ("type", "begins with"),  # what is reserved
    ("type", "is required"),  # unless `destination_id` is given
    ("data", "is required"),  # or `data_base64`
    ("data_base64", "cannot be given together"),
    ("content_type", "must be JSON for `data`"),
    ("data", "must be a string for this"),  # `datacontenttype`
    ("destination_id", "must be the id or the uid"),
    ("", "needs `destination_id` or `since`"),
    ("missing", "needs `destination_id`"),
    ("", "must hold 1 to 1000 events"),  # a batch of CloudEvents, or lines
    ("until", "must be later than `since`"),
    ("expires_at", "must be in the future"),
    ("retry", "belongs to the strategy"),
    ("metadata", "its name must have"),
    ("labels", "must have a name"),
    ("destination_defaults", ""),  # a part of a destination
    ("events_burst", "needs"),  # `events_per_second`
    ("ingest_signature", ""),  # what a scheme takes
    ("url", ""),  # the egress guard
    ("secret", ""),  # fits the schemes of `signatures`
    ("signatures", ""),  # fit the secret, and no two write the same header
    ("auth", ""),
    ("headers", ""),  # names that only Signalpost sets; placeholders; the sum of all
    ("statuses", "must name at least one"),  # unless `missing` is true
    ("max_open_ms", "must not be shorter"),  # than `open_ms`
    ("max_ms", "must not be shorter"),  # than `initial_ms`
)
# Wherever: names of members, which the generator has no way to follow.
NAMES = "is not the name of a CloudEvents attribute"
CODES = {
    "uid_conflict",  # what was accepted before decides
    "uid_taken",
    "slug_taken",
    "idempotency_mismatch",
    "quota_exceeded",
}


def by_rule(error):
    of = error["pointer"].split("/")
    return error["detail"].startswith(NAMES) or any(name in of and error["detail"].startswith(start) for name, start in RULES)


def forgiven(problem):
    code = problem.get("code")
    if code == "invalid_query":
        return problem["detail"].startswith(QUERIES)
    if code == "validation_failed":
        return bool(problem["errors"]) and all(by_rule(error) for error in problem["errors"])
    return code in CODES


def hooks():
    import schemathesis
    from schemathesis.generation import GenerationMode
    from schemathesis.openapi.checks import RejectedPositiveData

    with open(SEED) as file:
        seed = {kind: itertools.cycle(ids) for kind, ids in json.load(file).items()}

    numbers = itertools.count()

    def make_sense(case):
        """Takes out of a body what contradicts the rest, else nothing that has all members would ever be accepted."""
        if isinstance(case.body, dict) and case.method in ("PUT", "PATCH"):
            case.body.pop("uid", None)  # is in the path, or cannot be changed
        events = case.body.get("events") if isinstance(case.body, dict) else case.body
        for event in events if isinstance(events, list) else [case.body]:
            if not isinstance(event, dict):
                continue
            if "data" in event and "data_base64" in event:
                for name in ("data_base64", "content_type", "datacontenttype"):
                    event.pop(name, None)
            for name in ("uid", "id"):
                if isinstance(event.get(name), str):
                    event[name] = f"seed-{next(numbers)}"

    def is_valid(case, location):
        part = case.meta.components.get(location) if case.meta else None
        return part is not None and part.mode == GenerationMode.POSITIVE

    @schemathesis.hook
    def before_call(ctx, case, **kwargs):
        if not case.meta or case.meta.phase.name.value == "stateful":
            return
        if case.headers and is_valid(case, "header"):
            if "Signalpost-Tenant" in case.headers:
                case.headers["Signalpost-Tenant"] = "default"
            # Every fourth one is a repetition, of another request mostly.
            if "Idempotency-Key" in case.headers and next(numbers) % 4:
                case.headers["Idempotency-Key"] = f"seed-{next(numbers)}"
        if case.query and is_valid(case, "query"):
            case.query.pop("cursor", None)  # it would have to be an answer of before
        if isinstance(case.body, (dict, list)) and is_valid(case, "body"):
            make_sense(case)
        kind = case.path.split("/")[2] if case.path.startswith("/v1/") else None
        if case.path_parameters and kind in seed and is_valid(case, "path"):
            there = next(seed[kind])
            case.path_parameters.update({name: there[name] for name in case.path_parameters if name in there})

    @schemathesis.hook
    def filter_failure(ctx, failure, case, response):
        if not isinstance(failure, RejectedPositiveData):
            return True
        answer = response.json()
        # A batch of which nothing was accepted has a problem for each event.
        problems = [result["error"] for result in answer["results"]] if "results" in answer else [answer]
        return not all(forgiven(problem) for problem in problems)


def fill():
    import requests

    session = requests.Session()
    session.headers.update(KEY)

    def ask(method, path, body=None):
        answer = session.request(method, URL + path, json=body, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def await_(what, condition):
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                found = condition()
            except requests.ConnectionError:
                found = None
            if found:
                return found
            time.sleep(0.1)
        sys.exit(f"not in time: {what}")

    await_("the start", lambda: session.get(URL + "/health/ready", timeout=10).ok)
    destination = {"url": "https://nobody.invalid/", "event_types": ["seed.dead"], "guarantee": "at_most_once"}
    ask("POST", "/v1/destinations", destination)
    waiting = ask("POST", "/v1/destinations", {"url": "https://nobody.invalid/", "event_types": ["seed.waiting"]})
    ask("POST", f"/v1/destinations/{waiting['id']}/pause")
    spare = {"url": "https://nobody.invalid/", "event_types": ["seed.none"]}
    destinations = [ask("POST", "/v1/destinations", spare)["id"] for _ in range(MANY)]
    events = []
    for of_type in ("seed.dead", "seed.waiting"):
        batch = {"events": [{"type": of_type, "data": {"number": number}} for number in range(MANY)]}
        events += [result["id"] for result in ask("POST", "/v1/events/batch", batch)["results"]]

    def dead():
        found = ask("GET", f"/v1/dead-letters?limit={MANY}")["data"]
        return len(found) == MANY and [letter["id"] for letter in found]

    letters = await_("dead letters", dead)
    held = ask("GET", f"/v1/deliveries?destination_id={waiting['id']}&limit={MANY}")["data"]
    replays = [
        ask("POST", "/v1/replays", {"destination_id": waiting["id"], "rate_per_second": 0.001})["id"] for _ in range(MANY // 4)
    ]
    seed = {
        "destinations": [{"id": id} for id in destinations],
        "events": [{"id": id} for id in events],
        "dead-letters": [{"id": id} for id in letters],
        "deliveries": [{"id": delivery["id"]} for delivery in held],
        "replays": [{"id": id} for id in replays],
    }
    if "/v1/tenants" in ask("GET", "/openapi.json")["paths"]:
        seed["tenants"] = []
        for number in range(MANY // 4):
            tenant = ask("POST", "/v1/tenants", {"name": "Seed", "slug": f"seed-{number}"})["tenant"]["id"]
            key = ask("POST", f"/v1/tenants/{tenant}/keys", {"name": "Seed", "scopes": ["events:read"]})
            seed["tenants"].append({"id": tenant, "key_id": key["id"]})
    with open(SEED, "w") as file:
        json.dump(seed, file)


if __name__ == "__main__":
    fill()
else:
    hooks()
