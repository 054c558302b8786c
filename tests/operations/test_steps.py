"""What a step sends to Keycloak."""

from s2s_fastapi.operations.steps import AddAudience, MakeScope, added_mapper, new_scope


def test_a_mapper_gets_a_name_that_no_mapper_beside_it_has() -> None:
    scope = new_scope(MakeScope(scope="for-the-ledger", audiences=("ledger",)))
    step = AddAudience(scope="for-the-ledger", audience="ledger")
    names = []
    for _ in range(2):
        mapper = added_mapper(step, scope)
        names.append(mapper["name"])
        scope["protocolMappers"].append(mapper)

    assert names == ["audience ledger 2", "audience ledger 3"]
    assert added_mapper(step, {"protocolMappers": []})["name"] == "audience ledger"


def test_a_long_audience_gets_names_that_differ_and_that_keycloak_can_store() -> None:
    audience = f"https://{'a' * 300}.example.com"
    scope = new_scope(MakeScope(scope="long", audiences=(audience,), custom=(audience,)))
    second = added_mapper(AddAudience(scope="long", audience=audience, custom=True), scope)

    assert second["name"] != scope["protocolMappers"][0]["name"]
    assert len(second["name"]) <= 255
