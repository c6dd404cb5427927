"""Pods of the chart: what they may do, when they are ready, how they end."""

import itertools
import re
from typing import Any

import pytest

from deploy.chart import CONFIG, SHAPES, Object, container, of_kind, pods, render, settings, workloads
from openanomaly.settings import Settings

ALL = [(shape, role) for shape in SHAPES for role in pods(render(shape))] if SHAPES else []
EVERY_POD = pytest.mark.parametrize(("shape", "role"), ALL)
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES)
OWN_PORTS = ("api", "playground")
"""Roles whose port has settings of its own; that of the others is `web`."""


@EVERY_POD
def test_pods_are_restricted(shape: str, role: str) -> None:
    """The `restricted` standard of Kubernetes, and a root that is read-only."""
    pod = pods(render(shape))[role]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    # Volumes and secrets belong to the group, or nothing could be written and no key be read.
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert container(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert volumes <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}


@EVERY_POD
def test_what_pods_write_to_is_a_volume(shape: str, role: str) -> None:
    objects = render(shape)
    pod = pods(objects)[role]
    own = container(pod)
    mounts = {each["mountPath"]: each for each in own["volumeMounts"]}
    templates = workloads(objects).get(role, {}).get("spec", {}).get("volumeClaimTemplates", [])
    volumes = {each["name"] for each in pod["volumes"]} | {each["metadata"]["name"] for each in templates}
    assert {each["name"] for each in mounts.values()} == volumes
    paths = [re.sub(r"^(embedded://|[a-z_.]+=)", "", word) for word in own["args"]]
    written = ["/tmp", *(path for path in paths if path.startswith("/") and not path.startswith("/etc/"))]
    assert len(written) == 1 + (role in ("standalone", "pull"))
    if role in ("inference", "standalone", "pull") or (shape, role) == ("everything", "playground"):
        written += [each["value"] for each in own["env"] if each["name"] == "HF_HOME"]
    for path in written:
        assert any(path.startswith(mount) and not each.get("readOnly") for mount, each in mounts.items())
    assert any(
        CONFIG.startswith(mount) and each["readOnly"] for mount, each in mounts.items() if "etc" in mount
    )


@EVERY_POD
def test_files_that_settings_name_are_mounted(shape: str, role: str) -> None:
    objects = render(shape)
    mounts = [each["mountPath"] for each in container(pods(objects)[role])["volumeMounts"]]
    named = re.findall(r"/etc/openanomaly/[^'\"\s]+", str(settings(objects)))
    assert shape not in ("everything", "kafka-sasl-tls") or named
    assert all(any(path.startswith(f"{mount}/") for mount in mounts) for path in named)


@EVERY_POD
def test_resources_are_asked_for_and_memory_is_bounded(shape: str, role: str) -> None:
    resources = container(pods(render(shape))[role])["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert "memory" in resources["limits"]


@EVERY_POD
def test_ports_are_in_range_and_probes_ask_them(shape: str, role: str) -> None:
    own = container(pods(render(shape))[role])
    if role == "test":
        return
    [port] = own["ports"]
    assert port["name"] == "http"
    assert 1024 <= port["containerPort"] <= 65535
    assert own["args"][own["args"].index("--listen") + 1] == f":{port['containerPort']}"
    if shape == "mtls":
        return  # they only knock, see below
    paths = {name: own[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: each["path"] for name, each in paths.items()} == {
        "startup": "/-/healthy",
        "readiness": "/-/ready",
        "liveness": "/-/healthy",
    }
    assert {each["port"] for each in paths.values()} == {"http"}
    tls = settings(render(shape)).get(role if role in OWN_PORTS else "web", {}).get("tls")
    assert {each.get("scheme") for each in paths.values()} == {"HTTPS" if tls else None}


def test_who_wants_certificates_of_clients_is_not_asked_by_http() -> None:
    own = container(pods(render("mtls"))["standalone"])
    for name in ("startup", "readiness", "liveness"):
        assert own[f"{name}Probe"]["tcpSocket"] == {"port": "http"}


def test_the_test_shows_a_certificate_where_one_is_wanted_or_is_not_there() -> None:
    args = container(pods(render("mtls"))["test"])["args"]
    for option, file in (("--cert-file", "tls.crt"), ("--key-file", "tls.key"), ("--ca-file", "ca.crt")):
        assert args[args.index(option) + 1] == f"/etc/openanomaly/web/{file}"
    assert set(pods(render("mtls", "--set", "test.certFile=,test.keyFile="))) == {"standalone"}
    assert "test" in pods(render("standalone"))


@EVERY_SHAPE
def test_workloads_services_and_budgets_find_their_own_pods_alone(shape: str) -> None:
    objects = render(shape)
    labels = {
        role: each["spec"]["template"]["metadata"]["labels"] for role, each in workloads(objects).items()
    }
    labels |= {name: each["metadata"]["labels"] for name, each in of_kind(objects, "Pod").items()}

    def chosen(selector: dict[str, str]) -> set[str]:
        return {role for role, own in labels.items() if selector.items() <= own.items()}

    for role, each in workloads(objects).items():
        assert chosen(each["spec"]["selector"]["matchLabels"]) == {role}
        for spread in each["spec"]["template"]["spec"]["topologySpreadConstraints"]:
            assert chosen(spread["labelSelector"]["matchLabels"]) == {role}
    shown = dict.fromkeys(("receiver", "sink"), "standalone") if "standalone" in workloads(objects) else {}
    for name, each in of_kind(objects, "Service").items():
        assert chosen(each["spec"]["selector"]) == {shown.get(name, name)}
        assert [port["targetPort"] for port in each["spec"]["ports"]] == ["http"]
    budgets = of_kind(objects, "PodDisruptionBudget")
    assert set(budgets) == set(workloads(objects))
    for role, each in budgets.items():
        assert chosen(each["spec"]["selector"]["matchLabels"]) == {role}
    for role, each in workloads(objects).items():
        if each["kind"] == "StatefulSet":
            # In order, one pod that cannot start would hold up the fix of its settings.
            assert each["spec"]["podManagementPolicy"] == "Parallel"
            assert each["spec"]["serviceName"].removeprefix("release-") in of_kind(objects, "Service"), role


@EVERY_POD
def test_a_pod_has_longer_to_end_than_a_rebalance_and_its_drain_take(shape: str, role: str) -> None:
    pod = pods(render(shape))[role]
    if role == "test":
        return
    session_s = settings(render(shape)).get("broker", {}).get("session_timeout_s", 15)
    drain = (
        container(pod).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    )
    assert pod["terminationGracePeriodSeconds"] > session_s + int(drain[1]) + 10
    assert (role in ("receiver", "api")) == ("lifecycle" in container(pod))


def test_what_keeps_state_on_a_volume_is_never_there_twice() -> None:
    for shape, role in (("standalone", "standalone"), ("pull", "pull")):
        each = workloads(render(shape))[role]
        assert (each["kind"], each["spec"]["replicas"]) == ("StatefulSet", 1)
        [claim] = each["spec"]["volumeClaimTemplates"]
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_pages_of_the_playground_have_one_pod_that_holds_up_no_drain() -> None:
    spec = workloads(render("playground"))["playground"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    # Or the node of the only pod could never be emptied. A share is rounded up (Kubernetes, "Specifying a
    # disruption budget"), as that of `everything` is.
    for shape, most in (("playground", 1), ("everything", "25%")):
        budget = of_kind(render(shape), "PodDisruptionBudget")["playground"]["spec"]
        assert budget["maxUnavailable"] == most


def test_the_volume_of_the_broker_holds_what_it_may_write() -> None:
    [claim] = workloads(render("standalone"))["standalone"]["spec"]["volumeClaimTemplates"]
    size = claim["spec"]["resources"]["requests"]["storage"]
    assert int(size.removesuffix("Gi")) << 30 > Settings().broker.disk_limit_bytes


def test_a_gpu_is_asked_for_where_inference_runs_and_nowhere_else() -> None:
    found = pods(render("gpu"))
    inference = found.pop("inference")
    assert container(inference)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert inference["runtimeClassName"] == "nvidia"
    assert inference["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert inference["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert container(inference)["image"] == "openanomaly:gpu"
    for pod in found.values():
        assert "nvidia" not in str(pod)
        assert container(pod)["image"] == "openanomaly:0.1.0"
    # There may be no GPU for a second pod: the old one goes first.
    update = workloads(render("gpu"))["inference"]["spec"]["strategy"]["rollingUpdate"]
    assert update == {"maxSurge": 0, "maxUnavailable": 1}


def test_secrets_come_by_reference() -> None:
    for role, pod in pods(render("everything")).items():
        own = container(pod)
        assert own["envFrom"] == [{"secretRef": {"name": "openanomaly-credentials"}}], role
        sources = {each["name"]: each for each in pod["volumes"]}
        assert sources["file-kafka"]["secret"]["secretName"] == "kafka-client"
        assert sources["file-authorities"]["configMap"] == {"name": "authorities"}
    assert not of_kind(render("everything"), "Secret")


def settings_mark(*flags: str, shape: str = "kafka") -> set[str]:
    marks: set[str] = {
        each["spec"]["template"]["metadata"]["annotations"]["openanomaly/settings"]
        for each in workloads(render(shape, *flags)).values()
    }
    return marks


def test_other_pipelines_start_no_pods_and_other_settings_do() -> None:
    before = settings_mark()
    assert settings_mark("--set", "config.pipelines[0].name=other") == before
    assert settings_mark("--set", "config.sink.timeout_s=3") != before
    # A playground shows the pipelines that its process has read at its start.
    other = settings_mark("--set", "config.pipelines[0].name=other", shape="playground")
    assert other != settings_mark(shape="playground")
    # A file that is mounted as a folder changes under a running pod; one with `subPath` never does.
    assert all(
        "subPath" not in mount
        for pod in pods(render("kafka")).values()
        for mount in container(pod)["volumeMounts"]
    )


def test_a_role_has_its_own_pod_options_on_top() -> None:
    own = pods(render("everything"))
    assert own["inference"]["nodeSelector"] == {
        "kubernetes.io/arch": "amd64",
        "nvidia.com/gpu.present": "true",
    }
    assert own["sink"]["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert own["sink"]["terminationGracePeriodSeconds"] == 90


def scaled(shape: str) -> dict[str, Object]:
    return of_kind(render(shape), "ScaledObject", "HorizontalPodAutoscaler")


@pytest.mark.parametrize("shape", ["keda", "everything"])
def test_autoscaling_has_no_other_number_of_pods_beside_it(shape: str) -> None:
    objects = workloads(render(shape))
    assert set(scaled(shape)) == {"receiver", "window", "inference"}
    for role, each in scaled(shape).items():
        target = each["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == (objects[role]["kind"], f"release-{role}")
        assert "replicas" not in objects[role]["spec"]
    assert "replicas" in objects["sink"]["spec"]
    assert not scaled("kafka")


def test_windows_and_inference_are_scaled_by_our_own_lag() -> None:
    for role, name in (("window", "window"), ("inference", "infer")):
        spec = scaled("keda")[role]["spec"]
        [trigger] = spec["triggers"]
        assert trigger["type"] == "prometheus"
        assert trigger["metadata"]["query"] == (
            f'max(openanomaly_oldest_unread_seconds{{role="{name}",namespace="default",pod=~"release-{role}-.+"}})'
        )
        assert trigger["metadata"]["serverAddress"] == "http://prometheus-operated.monitoring:9090"
        assert trigger["authenticationRef"] == {"name": "prometheus"}
    assert scaled("keda")["window"]["spec"]["maxReplicaCount"] == 32


def peers(rules: list[Object]) -> list[Any]:
    return [rule.get("from") for rule in rules]


def test_network_policies_let_in_who_is_named() -> None:
    objects = render("everything")
    policies = of_kind(objects, "NetworkPolicy")
    assert set(policies) == set(workloads(objects))
    sender, test = (
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
        "test",
    )
    scraper = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}
    reader = {"ipBlock": {"cidr": "10.0.0.0/8"}}
    for role, each in policies.items():
        rules = each["spec"]["ingress"]
        assert all(rule["ports"] == [{"port": "http"}] for rule in rules)
        let_in = list(itertools.chain.from_iterable(peers(rules)))
        assert (sender in let_in) == (role == "receiver")
        assert (reader in let_in) == (role in ("sink", *OWN_PORTS))
        assert scraper in let_in
        probes = [p for p in let_in if test in str(p) and "component" in str(p)]
        assert len(probes) == (role in ("receiver", "sink", *OWN_PORTS))
        assert each["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert each["spec"]["egress"][0]["ports"] == [
            {"port": 53, "protocol": "UDP"},
            {"port": 53, "protocol": "TCP"},
        ]
    assert not of_kind(render("kafka"), "NetworkPolicy")


def test_nobody_named_is_everybody_and_no_egress_rule_is_none() -> None:
    flags = ["--set", "networkPolicy.enabled=true"]
    policies = of_kind(render("standalone", *flags), "NetworkPolicy")
    spec = policies["standalone"]["spec"]
    assert peers(spec["ingress"]) == [None, None, [{"namespaceSelector": {}}]]
    assert spec["policyTypes"] == ["Ingress"]


def scraped(objects: tuple[Object, ...]) -> dict[str, list[Object]]:
    """Role -> the endpoints by which PodMonitors scrape its pods."""
    found: dict[str, list[Object]] = {role: [] for role in workloads(objects)}
    for monitor in of_kind(objects, "PodMonitor").values():
        spec = monitor["spec"]
        [expression] = spec["selector"]["matchExpressions"]
        for role, each in workloads(objects).items():
            labels = each["spec"]["template"]["metadata"]["labels"]
            is_in = labels[expression["key"]] in expression["values"]
            if is_in != (expression["operator"] == "In"):
                continue
            assert spec["selector"]["matchLabels"].items() <= labels.items()
            assert labels[spec["jobLabel"]] == "release"  # two installations have two jobs
            found[role] += spec["podMetricsEndpoints"]
    return found


def test_every_pod_is_scraped_once() -> None:
    objects = render("everything")
    for role, endpoints in scraped(objects).items():
        assert [(each["port"], each["path"]) for each in endpoints] == [("http", "/metrics")], role
    monitors = of_kind(objects, "PodMonitor")
    assert {each["metadata"]["labels"]["release"] for each in monitors.values()} == {"prometheus"}
    assert not of_kind(render("kafka"), "PodMonitor")


def test_who_scrapes_speaks_as_the_port_does() -> None:
    insecure = {"insecureSkipVerify": True}
    for tls in itertools.product((True, False), repeat=1 + len(OWN_PORTS)):
        is_on = dict(zip(("web", *OWN_PORTS), tls, strict=True))
        off = [f"config.{name}.tls=null" for name in is_on if not is_on[name]]
        flags = ["--set", ",".join([*off, "test.caFile="])]
        for role, [endpoint] in scraped(render("everything", *flags)).items():
            has_tls = is_on.get(role, is_on["web"])
            assert (endpoint.get("scheme"), endpoint.get("tlsConfig")) == (
                ("https", insecure) if has_tls else (None, None)
            ), role
    [[endpoint]] = scraped(render("mtls")).values()
    assert endpoint["tlsConfig"]["cert"] == {"secret": {"name": "scraper", "key": "tls.crt"}}
    assert endpoint["tlsConfig"]["keySecret"] == {"name": "scraper", "key": "tls.key"}
