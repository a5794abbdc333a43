"""deploy/kubernetes as kustomize builds it: the schemas of Kubernetes, and the settings and metrics that exist."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config import Config, effective
from server.net.server import LAST_REQUEST_S, LATE_S
from server.telemetry.metrics import Metrics
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
# The interpreter with kubernetes-validate, which `make test-kubernetes` installs.
VALIDATOR = ROOT / "build" / "kubernetes" / "bin" / "python"
OVERLAYS = ("base", "collections")
Object = dict[str, Any]


def built(overlay: str) -> str:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    command = [kubectl, "kustomize", str(FOLDER / overlay)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(params=OVERLAYS)
def text(request: pytest.FixtureRequest) -> str:
    return built(request.param)


@pytest.fixture
def objects(text: str) -> list[Object]:
    return list(yaml.safe_load_all(text))


def of_kind(objects: Sequence[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def workloads(objects: Sequence[Object]) -> list[Object]:
    return of_kind(objects, "Deployment") + of_kind(objects, "StatefulSet")


def container_of(workload: Object) -> Object:
    [container] = workload["spec"]["template"]["spec"]["containers"]
    return dict(container)


def settings_of(workload: Object) -> Config:
    """The settings as the server reads them; a variable that is none of them is refused."""
    variables = {each["name"]: each["value"] for each in container_of(workload)["env"]}
    return effective(variables).config


def finds(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def test_every_object_has_the_form_that_kubernetes_accepts(text: str, tmp_path: Path) -> None:
    if not VALIDATOR.exists():
        pytest.skip("kubernetes-validate is not installed: `make test-kubernetes`")
    file = tmp_path / "objects.yaml"
    file.write_text(text)
    command = [str(VALIDATOR), "-m", "kubernetes_validate", "--strict", "-k", "1.32.0", str(file)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count(" passed ") == text.count("\nkind: ")


def test_the_server_takes_every_variable_and_the_nodes_keep_nothing(objects: list[Object]) -> None:
    for workload in workloads(objects):
        config, keeps = settings_of(workload), workload["kind"] == "StatefulSet"
        assert config.keeps_collections == keeps
        pod = workload["spec"]["template"]["spec"]
        mounts = {each["mountPath"] for each in container_of(workload)["volumeMounts"]}
        assert config.keys is not None and str(config.keys.parent) in mounts
        assert config.unix_socket is None
        assert (str(config.data) in mounts) == keeps
        assert pod["enableServiceLinks"] is False


def test_pods_have_the_time_to_drain_and_to_finish(objects: list[Object]) -> None:
    for workload in workloads(objects):
        config = settings_of(workload)
        needed = config.drain_s + LAST_REQUEST_S + config.shutdown_s
        grace = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert needed + LATE_S - 1 <= grace
    [nodes] = of_kind(objects, "Deployment")
    ready = container_of(nodes)["readinessProbe"]
    assert settings_of(nodes).drain_s >= 2 * ready["periodSeconds"] * ready["failureThreshold"]


def test_probes_and_ports_are_the_servers(objects: list[Object]) -> None:
    for workload in workloads(objects):
        container = container_of(workload)
        [port] = container["ports"]
        assert port["containerPort"] == settings_of(workload).port
        paths = {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
        for probe, path in paths.items():
            assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}
        notes = workload["spec"]["template"]["metadata"]["annotations"]
        assert notes["prometheus.io/port"] == str(port["containerPort"])
    for service in of_kind(objects, "Service"):
        assert service["spec"]["ports"][0]["targetPort"] == "http"


def test_pods_have_no_rights_and_write_only_what_is_mounted(objects: list[Object]) -> None:
    for workload in workloads(objects):
        pod, own = workload["spec"]["template"]["spec"], container_of(workload)["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert own == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        # The user of the image.
        user = str(pod["securityContext"]["runAsUser"])
        assert f"USER {user}:{user}" in (ROOT / "Dockerfile").read_text()


def test_every_selector_finds_the_pods_that_it_means(objects: list[Object]) -> None:
    labels = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in workloads(objects)
    }
    for workload in workloads(objects):
        name = workload["metadata"]["name"]
        selector = workload["spec"]["selector"]["matchLabels"]
        assert [each for each in labels if finds(selector, labels[each])] == [name]
    for service in of_kind(objects, "Service"):
        found = [each for each in labels if finds(service["spec"]["selector"], labels[each])]
        assert found == [service["metadata"]["name"]]
    [budget] = of_kind(objects, "PodDisruptionBudget")
    selector = budget["spec"]["selector"]["matchLabels"]
    assert [each for each in labels if finds(selector, labels[each])] == ["inkwell-nodes"]


def test_only_the_namespace_and_prometheus_connect_and_nothing_leaves(
    objects: list[Object],
) -> None:
    [policy] = of_kind(objects, "NetworkPolicy")
    spec = policy["spec"]
    assert (sorted(spec["policyTypes"]), spec["egress"]) == (["Egress", "Ingress"], [])
    selector = spec["podSelector"]["matchLabels"]
    pods = [each["spec"]["template"]["metadata"]["labels"] for each in workloads(objects)]
    assert all(finds(selector, labels) for labels in pods)
    [rule] = spec["ingress"]
    namespace, prometheus = rule["from"]
    assert namespace == {"podSelector": {}}
    assert prometheus["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}


def test_the_autoscalers_metric_is_made_of_metrics_that_the_server_has(
    objects: list[Object],
) -> None:
    [scaler] = of_kind(objects, "HorizontalPodAutoscaler")
    [metric] = scaler["spec"]["metrics"]
    [rule] = yaml.safe_load((FOLDER / "adapter-rules.yaml").read_text(encoding="utf-8"))["rules"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    names = set(re.findall(r"inkwell_\w+", rule["metricsQuery"] + rule["seriesQuery"]))
    page = Metrics().render().decode()
    assert names and names <= set(re.findall(r"^(\w+)", page, re.MULTILINE))
    assert scaler["spec"]["scaleTargetRef"]["name"] in {
        each["metadata"]["name"] for each in of_kind(objects, "Deployment")
    }


def test_the_collections_have_one_server(objects: list[Object]) -> None:
    for each in of_kind(objects, "StatefulSet"):
        assert each["spec"]["replicas"] == 1
        names = [claim["metadata"]["name"] for claim in each["spec"]["volumeClaimTemplates"]]
        mounts = {mount["name"]: mount["mountPath"] for mount in container_of(each)["volumeMounts"]}
        assert mounts[names[0]] == str(settings_of(each).data)
