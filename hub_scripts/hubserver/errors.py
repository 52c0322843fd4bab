"""What the Hub refuses, each with its HTTP status and the code by which clients know it."""


class HubError(Exception):
    status = 404
    code: str | None = None


class BadRequest(HubError):
    status = 400


class Unauthorized(HubError):
    status = 401


class Forbidden(HubError):
    status = 403


class Gated(Forbidden):
    code = "GatedRepo"


class Conflict(HubError):
    status = 409


class ParentMoved(HubError):
    status = 412


class RepoMissing(HubError):
    code = "RepoNotFound"


class RevisionMissing(HubError):
    code = "RevisionNotFound"


class EntryMissing(HubError):
    code = "EntryNotFound"

    def __init__(self, path: str, commit: str):
        super().__init__(f"Entry not found: {path}")
        self.commit = commit
