"""Wrong fleets, each with the tests that must notice it."""

from dataclasses import replace

from huggingface_hub import get_token

from hf_bico.workflows.fleet import cells, ledger, local, remote, run, tasks
from tests.mutants.changes import given, instead, of_tests, then

FLEET = "tests/workflows/test_fleet"
MUTANTS = {
    "a fleet that does all again": of_tests(
        run, "is_done", instead(False), f"{FLEET}_jobs.py::test_a_job_that_ended_well_has_its_scores_in_the_ledger"
    ),
    "a fleet that moves another's folder": of_tests(
        local, "put_aside", instead(None), f"{FLEET}.py::test_a_folder_of_somebody_else_is_left_alone"
    ),
    "a fleet that loses an earlier port": of_tests(
        local, "bring_back", instead(None), f"{FLEET}.py::test_a_port_that_fails_to_be_made_again_leaves_the_earlier"
    ),
    "a ledger of one writer": of_tests(
        ledger.Ledger,
        "keep",
        lambda right: lambda self: (self.keeper.read(), self.keeper.write(self.text()))[1],
        f"{FLEET}_plans.py::test_changes_of_others_stay_in_a_ledger",
    ),
    "a token in a job's environment": of_tests(
        remote,
        "request_of",
        then(lambda said: said | {"env": {"TOKEN": get_token()}}),
        f"{FLEET}_jobs.py::test_a_cell_is_submitted_as_a_job",
    ),
    "a job that keeps its port on its disk": of_tests(
        run, "for_a_job", lambda right: lambda task: task, f"{FLEET}_jobs.py::test_a_cell_is_submitted_as_a_job"
    ),
    "all before a source": of_tests(
        cells,
        "_cell",
        given(lambda said, source, *rest: (said, replace(source, settings={}), *rest)),
        f"{FLEET}_plans.py::test_what_is_more_specific_holds",
    ),
    "maps that nobody uses": of_tests(
        tasks,
        "is_shared",
        instead(False),
        f"{FLEET}_jobs.py::test_maps_are_a_job_of_their_own_and_the_ports_wait_for_it",
    ),
}
