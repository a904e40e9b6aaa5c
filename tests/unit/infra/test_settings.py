"""Every part is embedded unless its URL says otherwise."""

from pathlib import Path

import pytest

from infra.settings import SECRETS_FILE, load_settings


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, named by the environment."""
    monkeypatch.setenv("MARQUEE_DATA", str(tmp_path))
    return tmp_path


def test_by_default_every_store_is_below_the_data_folder(data: Path) -> None:
    settings = load_settings()
    stores = [settings.redis_url, settings.event_log_url, settings.lake_uri, settings.database_url]
    stores += [settings.registry_uri, str(settings.artifacts)]
    assert all(str(data) in store for store in stores)


def test_a_cluster_is_no_event_log(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = "redis+cluster://localhost:7000"
    monkeypatch.setenv("MARQUEE_REDIS", cluster)
    with pytest.raises(SystemExit, match=r"MARQUEE_EVENT_LOG: a Redis Cluster is no event log.*Name Kafka"):
        load_settings()
    monkeypatch.setenv("MARQUEE_EVENT_LOG", "redis://localhost:6379")
    assert (load_settings().redis_url, load_settings().event_log_url) == (cluster, "redis://localhost:6379")
    monkeypatch.setenv("MARQUEE_EVENT_LOG", cluster)
    with pytest.raises(SystemExit, match="no event log"):
        load_settings()


def test_the_event_log_is_the_redis_that_was_named_until_it_has_a_url_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MARQUEE_REDIS", "redis://localhost:6379")
    assert load_settings().event_log_url == "redis://localhost:6379"
    monkeypatch.setenv("MARQUEE_EVENT_LOG", "kafka://localhost:9092")
    assert load_settings().event_log_url == "kafka://localhost:9092"


def test_the_environment_wins_over_the_secrets_file(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / SECRETS_FILE).write_text("MARQUEE_API_KEY=from-file\n")
    assert load_settings().api_key.get_secret_value() == "from-file"
    monkeypatch.setenv("MARQUEE_API_KEY", "from-environment")
    assert load_settings().api_key.get_secret_value() == "from-environment"


URLS = {"REDIS": "rediss", "EVENT_LOG": "kafkas", "DATABASE": "postgresql+psycopg", "REGISTRY": "postgresql+psycopg"}


def test_a_printed_setting_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_API_KEY", "hush")
    monkeypatch.setenv("MARQUEE_SECRET", "hush")
    for name, scheme in URLS.items():
        monkeypatch.setenv(f"MARQUEE_{name}", f"{scheme}://user:hush@host:1234")
    settings = load_settings()
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings)


def test_a_setting_that_does_not_parse_is_named_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_PARTITIONS", "hush")
    with pytest.raises(SystemExit, match=r"Cannot start: MARQUEE_PARTITIONS: .*integer") as raised:
        load_settings()
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("REDIS", "redis://user:hush@cache:6379"),
        ("REDIS", "rediss://user:hush@cache:6379?ssl_cert_reqs=none"),
        ("EVENT_LOG", "kafka://user:hush@broker:9092"),
        ("EVENT_LOG", "redis://user:hush@cache:6379"),
        ("DATABASE", "postgresql+psycopg://user:hush@db/marquee?sslmode=require"),
        ("REGISTRY", "http://user:hush@mlflow:5000"),
    ],
)
def test_a_store_is_reached_in_no_way_that_others_can_read(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MARQUEE_{name}", url)
    with pytest.raises(SystemExit, match=f"Cannot start: MARQUEE_{name}: ") as raised:
        load_settings()
    assert "hush" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_hosts_that_are_named_may_be_reached_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_REDIS", "redis://cache:6379")
    monkeypatch.setenv("MARQUEE_EVENT_LOG", "kafka://broker:9092")
    monkeypatch.setenv("MARQUEE_PLAIN_HOSTS", "cache,broker")
    assert load_settings().redis_url == "redis://cache:6379"
    assert load_settings().event_log_url == "kafka://broker:9092"


def test_every_store_is_told_the_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_CA_FILE", "/ca.pem")
    for name, scheme in URLS.items():
        monkeypatch.setenv(f"MARQUEE_{name}", f"{scheme}://user:hush@host:1234")
    settings = load_settings()
    reached = [settings.redis_url, settings.event_log_url, settings.database_url, settings.registry_uri]
    assert all("=%2Fca.pem" in url or "=/ca.pem" in url for url in reached)


def test_a_list_of_origins_is_taken_apart_and_anything_else_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().origins == []
    monkeypatch.setenv("MARQUEE_ALLOWED_ORIGINS", "http://localhost:8000,https://tv.example.org")
    assert load_settings().origins == ["http://localhost:8000", "https://tv.example.org"]
    monkeypatch.setenv("MARQUEE_ALLOWED_ORIGINS", "*")
    with pytest.raises(SystemExit, match="MARQUEE_ALLOWED_ORIGINS: write each origin as"):
        load_settings()


def test_processes_are_on_this_host_unless_their_urls_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_HOST", "0.0.0.0")
    monkeypatch.setenv("MARQUEE_SERVING_PORT", "18000")
    monkeypatch.setenv("MARQUEE_PROCESS_URLS", "lander=http://10.0.0.5:9101,trainer=https://trainer.example.org")
    assert load_settings().processes == {
        "ingest": "http://127.0.0.1:8001",
        "lander": "http://10.0.0.5:9101",
        "nearline": "http://127.0.0.1:9102",
        "trainer": "https://trainer.example.org",
        "serving": "http://127.0.0.1:18000",
    }
    for wrong in ("land=http://10.0.0.5:9101", "lander=file:///etc/passwd", "lander=http://a/b", "lander"):
        monkeypatch.setenv("MARQUEE_PROCESS_URLS", wrong)
        with pytest.raises(SystemExit, match="MARQUEE_PROCESS_URLS: write name=http"):
            load_settings()
