"""The accounts of the installation's own processes: when a password changes, and what is valid."""

import hashlib
import itertools
from datetime import UTC, datetime, timedelta

from memtenant.rules.systemusers import ROTATE_AFTER, SystemSecret, is_memtenants
from memtenant.tenancy.sentinel import SentinelAccess
from memtenant.tenancy.storesfile import Endpoint, StoreAccess

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
OVERLAP = timedelta(minutes=3)
ACCESS = StoreAccess("shared", "Standalone", (Endpoint("redis", 6379),), "mt.sealer", "")
_numbers = itertools.count(1)


def mint() -> str:
    return f"password-{next(_numbers)}"


def at(secret: SystemSecret, now: datetime, access: StoreAccess = ACCESS) -> SystemSecret:
    return secret.with_store(access, now, mint, OVERLAP)


def password(secret: SystemSecret, store: str = "shared") -> str:
    found = secret.stores.get(store)
    assert found is not None
    return found.password


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_password_stays_until_it_is_old() -> None:
    first = at(SystemSecret(b"k" * 32), NOW)
    assert at(first, NOW + ROTATE_AFTER - timedelta(seconds=1)) == first
    assert password(at(first, NOW + ROTATE_AFTER)) != password(first)


def test_the_password_before_is_valid_until_every_pod_has_read_the_new_one() -> None:
    first = at(SystemSecret(b"k" * 32), NOW)
    turned = at(first, NOW + ROTATE_AFTER)
    both = (digest(password(turned)), digest(password(first)))
    assert turned.password_hashes("shared") == both
    within = at(turned, NOW + ROTATE_AFTER + OVERLAP - timedelta(seconds=1))
    assert within == turned
    after = at(turned, NOW + ROTATE_AFTER + OVERLAP)
    assert after.password_hashes("shared") == both[:1]


def test_what_is_missing_in_the_secret_is_minted_anew() -> None:
    first = at(SystemSecret(b"k" * 32), NOW)
    for key in ("stores.json", "accounts.json"):
        damaged = SystemSecret.from_data({**first.to_data(), key: b"{"})
        assert password(at(damaged, NOW)) != password(first)


def test_a_secret_is_read_as_it_was_written() -> None:
    tls = StoreAccess(
        "other",
        "Standalone",
        (Endpoint("::1", 1),),
        "mt.sealer",
        "",
        tls=True,
        ca_crt="ca",
        server_name="redis.example.org",
        client_crt="crt",
        client_key="key",
        sentinel=SentinelAccess((("s1", 26379), ("::1", 26380)), "main", "mt.ask", "pw", "name"),
    )
    secret = at(at(at(SystemSecret(b"k" * 32), NOW), NOW + ROTATE_AFTER), NOW, tls)
    assert SystemSecret.from_data(secret.to_data()) == secret
    gone = secret.without_store("other")
    assert (gone.stores.get("other"), gone.password_hashes("other")) == (None, ())
    assert gone.password_hashes("shared") == secret.password_hashes("shared")


def test_no_tenants_user_has_a_system_users_name() -> None:
    assert is_memtenants("mt.sealer")
    assert is_memtenants("mt.support.acme.triage.a")
    assert not is_memtenants("mt.somebody")
    assert "password" not in repr(at(SystemSecret(b"k" * 32), NOW))
