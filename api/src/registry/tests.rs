//! The registry's REST, call by call, as clients make them.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::tests::{Reply, config, send, serve};

async fn call(address: SocketAddr, line: &str, body: &Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!("{line} HTTP/1.1\r\nContent-Type: application/vnd.schemaregistry.v1+json");
    send(address, &head, &body).await
}

/// Plays calls in order: line, body, status, answer. An error is compared by its code alone.
async fn play(address: SocketAddr, steps: &[(&str, Value, u16, Value)]) {
    for (line, body, status, wanted) in steps {
        let reply = call(address, line, body).await;
        let answer: Value = serde_json::from_str(&reply.body).unwrap_or(Value::Null);
        let shown = answer.get("error_code").cloned().unwrap_or_else(|| answer.clone());
        assert_eq!((reply.status, &shown), (*status, wanted), "{line} {body}: {}", reply.body);
    }
}

fn avro(fields: &str) -> Value {
    json!({"schema": format!(r#"{{"type":"record","name":"E","fields":[{fields}]}}"#)})
}

const ID: &str = r#"{"name":"id","type":"long"}"#;
const NOTE: &str = r#"{"name":"note","type":["null","string"],"default":null}"#;
const BARE: &str = r#"{"name":"list","type":"array","items":"string"}"#;
const MUST: &str = r#"{"name":"must","type":"string"}"#;

fn with(parts: &[&str]) -> Value {
    avro(&parts.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_versions_and_ids() {
    let dir = tempfile::tempdir().unwrap();
    let running = serve(dir.path()).await;
    let one = with(&[ID]);
    let two = with(&[ID, NOTE]);
    let text = |body: &Value| body["schema"].clone();
    let spaced = json!({"schema": one["schema"].as_str().unwrap().replace(':', " : "), "schemaType": "AVRO"});
    let steps = [
        ("GET /subjects", Value::Null, 200, json!([])),
        ("GET /subjects/e-value/versions", Value::Null, 404, json!(40401)),
        ("POST /subjects/e-value/versions", one.clone(), 200, json!({"id": 1})),
        ("POST /subjects/e-value/versions?normalize=true", spaced, 200, json!({"id": 1})),
        ("POST /subjects/a%2Fb-value/versions", one.clone(), 200, json!({"id": 1})),
        ("POST /subjects/e-value/versions/", two.clone(), 200, json!({"id": 2})),
        ("POST /subjects/e-value/versions", with(&[ID, MUST]), 409, json!(409)),
        ("POST /subjects/e-value/versions", json!({"schema": "{"}), 422, json!(42201)),
        ("POST /subjects/e-value/versions", json!({"schema": "\"int\"", "schemaType": "XML"}), 422, json!(42201)),
        ("POST /subjects/e-value/versions", json!({}), 422, json!(42201)),
        ("POST /subjects/e-value/versions", json!({"schema": "\"int\"", "id": 9}), 422, json!(42205)),
        ("POST /subjects/__GLOBAL/versions", one.clone(), 422, json!(42208)),
        ("GET /subjects", Value::Null, 200, json!(["a/b-value", "e-value"])),
        ("GET /subjects?subjectPrefix=e", Value::Null, 200, json!(["e-value"])),
        ("GET /subjects?subjectPrefix=%3A*%3A&offset=1&limit=5", Value::Null, 200, json!(["e-value"])),
        ("GET /subjects/e-value/versions", Value::Null, 200, json!([1, 2])),
        (
            "GET /subjects/e-value/versions/latest",
            Value::Null,
            200,
            json!({"subject": "e-value", "version": 2, "id": 2, "schema": text(&two)}),
        ),
        ("GET /subjects/e-value/versions/3", Value::Null, 404, json!(40402)),
        ("GET /subjects/e-value/versions/0", Value::Null, 422, json!(42202)),
        ("GET /subjects/e-value/versions/x", Value::Null, 422, json!(42202)),
        ("GET /subjects/absent/versions/1", Value::Null, 404, json!(40401)),
        (
            "POST /subjects/e-value",
            one.clone(),
            200,
            json!({"subject": "e-value", "version": 1, "id": 1, "schema": text(&one)}),
        ),
        ("POST /subjects/e-value", with(&[MUST]), 404, json!(40403)),
        ("POST /subjects/e-value", with(&[BARE]), 422, json!(42201)),
        ("POST /subjects/bare-value/versions", with(&[BARE]), 422, json!(42201)),
        ("POST /subjects/absent", one.clone(), 404, json!(40401)),
        ("GET /schemas/ids/1", Value::Null, 200, json!({"schema": text(&one)})),
        (
            "GET /schemas/ids/1?subject=e-value&fetchMaxId=true",
            Value::Null,
            200,
            json!({"schema": text(&one), "maxId": 2}),
        ),
        ("GET /schemas/ids/7", Value::Null, 404, json!(40403)),
        ("GET /schemas/ids/1/subjects", Value::Null, 200, json!(["a/b-value", "e-value"])),
        ("GET /schemas/ids/2/versions", Value::Null, 200, json!([{"subject": "e-value", "version": 2}])),
        ("GET /schemas/types", Value::Null, 200, json!(["JSON", "PROTOBUF", "AVRO"])),
        ("GET /contexts", Value::Null, 200, json!(["."])),
        ("GET /associations/resources/-/e?resourceType=topic", Value::Null, 404, json!(404)),
        ("PATCH /subjects", Value::Null, 404, json!(404)),
    ];
    play(running.registry().unwrap(), &steps).await;
    let bare = call(running.http(), "GET /registry/schemas/ids/1/schema", &Value::Null).await;
    assert_eq!(bare.json()["name"], "E");
    assert!(bare.head.contains("application/vnd.schemaregistry.v1+json"), "{}", bare.head);
    let plain = send(running.http(), "GET /registry/subjects HTTP/1.1\r\nAccept: application/json", "").await;
    assert!(plain.head.contains("content-type: application/json"), "{}", plain.head);
    let all = call(running.http(), "GET /registry/schemas?latestOnly=true", &Value::Null).await.json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_modes_deletions_and_references() {
    let dir = tempfile::tempdir().unwrap();
    let running = serve(dir.path()).await;
    let at = running.registry().unwrap();
    let one = with(&[ID]);
    let level = |level: &str| json!({"compatibility": level});
    let steps = [
        ("GET /config", Value::Null, 200, json!({"compatibilityLevel": "BACKWARD"})),
        ("PUT /config", level("full"), 200, level("FULL")),
        ("PUT /config", level("SIDEWARD"), 422, json!(42203)),
        ("GET /config/s", Value::Null, 404, json!(40408)),
        ("GET /config/s?defaultToGlobal=true", Value::Null, 200, json!({"compatibilityLevel": "FULL"})),
        ("POST /subjects/s/versions", one.clone(), 200, json!({"id": 1})),
        ("POST /compatibility/subjects/s/versions/latest", with(&[ID, NOTE]), 200, json!({"is_compatible": true})),
        ("POST /compatibility/subjects/s/versions/", with(&[ID, MUST]), 200, json!({"is_compatible": false})),
        ("POST /compatibility/subjects/s/versions/9", one.clone(), 404, json!(40402)),
        ("POST /compatibility/subjects/absent/versions/latest", one.clone(), 200, json!({"is_compatible": true})),
        ("PUT /config/s", level("NONE"), 200, level("NONE")),
        ("POST /subjects/s/versions", json!({"schema": "\"int\""}), 200, json!({"id": 2})),
        ("PUT /config/s", level("BACKWARD_TRANSITIVE"), 200, level("BACKWARD_TRANSITIVE")),
        ("POST /subjects/s/versions", json!({"schema": "\"long\""}), 409, json!(409)),
        ("PUT /config/s", level("BACKWARD"), 200, level("BACKWARD")),
        ("POST /subjects/s/versions", json!({"schema": "\"long\""}), 200, json!({"id": 3})),
        ("DELETE /config/s", Value::Null, 200, json!({"compatibilityLevel": "BACKWARD"})),
        ("DELETE /config/s", Value::Null, 404, json!(40408)),
        ("DELETE /config", Value::Null, 200, json!({"compatibilityLevel": "BACKWARD"})),
        ("GET /mode", Value::Null, 200, json!({"mode": "READWRITE"})),
        ("GET /mode/s", Value::Null, 404, json!(40409)),
        ("PUT /mode/s", json!({"mode": "READONLY"}), 200, json!({"mode": "READONLY"})),
        ("POST /subjects/s/versions", json!({"schema": "\"double\""}), 422, json!(42205)),
        ("POST /subjects/s/versions", json!({"schema": "\"long\""}), 200, json!({"id": 3})),
        ("PUT /mode/s", json!({"mode": "x"}), 422, json!(42204)),
        ("DELETE /mode/s", Value::Null, 200, json!({"mode": "READONLY"})),
        ("PUT /mode/new", json!({"mode": "IMPORT"}), 200, json!({"mode": "IMPORT"})),
        ("POST /subjects/new/versions", json!({"schema": "\"bytes\"", "id": 50, "version": 3}), 200, json!({"id": 50})),
        ("POST /subjects/new/versions", json!({"schema": "\"float\"", "id": 50}), 422, json!(42207)),
        ("POST /subjects/new/versions", json!({"schema": "\"float\""}), 422, json!(42205)),
        ("DELETE /subjects/s/versions/1?permanent=true", Value::Null, 404, json!(40407)),
        ("DELETE /subjects/s/versions/1", Value::Null, 200, json!(1)),
        ("DELETE /subjects/s/versions/1", Value::Null, 404, json!(40406)),
        ("GET /subjects/s/versions/1", Value::Null, 404, json!(40402)),
        ("GET /subjects/s/versions?deleted=true", Value::Null, 200, json!([1, 2, 3])),
        ("DELETE /subjects/s/versions/1?permanent=true", Value::Null, 200, json!(1)),
        ("GET /schemas/ids/1", Value::Null, 404, json!(40403)),
        ("DELETE /subjects/s?permanent=true", Value::Null, 404, json!(40405)),
        ("DELETE /subjects/s", Value::Null, 200, json!([2, 3])),
        ("DELETE /subjects/s", Value::Null, 404, json!(40404)),
        ("GET /subjects?deletedOnly=true", Value::Null, 200, json!(["s"])),
        (
            "GET /subjects/s/versions/2?deleted=true",
            Value::Null,
            200,
            json!({"subject": "s", "version": 2, "id": 2, "schema": "\"int\""}),
        ),
        ("DELETE /subjects/s?permanent=true", Value::Null, 200, json!([2, 3])),
        ("DELETE /subjects/s", Value::Null, 404, json!(40401)),
    ];
    play(at, &steps).await;
    let path = "POST /compatibility/subjects/new/versions/latest?verbose=true";
    let verbose = call(at, path, &json!({"schema": "\"int\""})).await.json();
    assert!(verbose["messages"][0].as_str().unwrap().contains("TYPE_MISMATCH"), "{verbose}");
    references(at).await;
    running.stop().await;
}

async fn references(at: SocketAddr) {
    let user =
        json!({"schema": r#"{"type":"record","name":"User","namespace":"n","fields":[{"name":"id","type":"long"}]}"#});
    let reference = json!([{"name": "n.User", "subject": "user", "version": 1}]);
    let event = json!({"schema": r#"{"type":"record","name":"Ev","namespace":"n","fields":[{"name":"user","type":"n.User"}]}"#, "references": reference});
    let mut absent = event.clone();
    absent["references"][0]["version"] = json!(7);
    let proto = json!({"schemaType": "PROTOBUF", "schema": "syntax = \"proto3\"; message M { int64 id = 1; }"});
    let importing = json!({"schemaType": "PROTOBUF", "schema": "syntax = \"proto3\"; import \"m.proto\"; message N { M m = 1; }",
        "references": [{"name": "m.proto", "subject": "m", "version": -1}]});
    let steps = [
        ("POST /subjects/user/versions", user, 200, json!({"id": 51})),
        ("POST /subjects/event/versions", absent, 422, json!(42201)),
        ("POST /subjects/event/versions", event.clone(), 200, json!({"id": 52})),
        ("GET /schemas/ids/52", Value::Null, 200, json!({"schema": event["schema"], "references": reference})),
        ("GET /subjects/user/versions/1/referencedby", Value::Null, 200, json!([52])),
        ("DELETE /subjects/user/versions/1", Value::Null, 422, json!(42206)),
        ("POST /subjects/m/versions", proto, 200, json!({"id": 53})),
        ("POST /subjects/n/versions", importing, 200, json!({"id": 54})),
        (
            "POST /subjects/m/versions",
            json!({"schemaType": "PROTOBUF", "schema": "syntax = \"proto3\"; message M { string id = 1; }"}),
            409,
            json!(409),
        ),
        ("POST /subjects/m/versions", json!({"schemaType": "PROTOBUF", "schema": "message {"}), 422, json!(42201)),
        (
            "POST /subjects/j/versions",
            json!({"schemaType": "JSON", "schema": "{\"type\": \"strin\"}"}),
            422,
            json!(42201),
        ),
        (
            "POST /subjects/j/versions",
            json!({"schemaType": "JSON", "schema": "{\"type\": \"string\"}"}),
            200,
            json!({"id": 55}),
        ),
        ("GET /schemas/ids/55", Value::Null, 200, json!({"schemaType": "JSON", "schema": "{\"type\": \"string\"}"})),
    ];
    play(at, &steps).await;
    let compiled = call(at, "GET /schemas/ids/54?format=serialized", &Value::Null).await.json();
    assert_eq!(compiled["schemaType"], "PROTOBUF");
    assert!(crate::base64::unbase64(compiled["schema"].as_str().unwrap()).is_some_and(|bytes| bytes.len() > 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_schemas_are_there_at_the_start_and_mistakes_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let declared = |schema: &str| crate::config::SchemaDeclaration {
        subject: "listens-value".into(),
        kind: broker::SchemaType::Avro,
        schema: schema.into(),
        references: Vec::new(),
        compatibility: Some(broker::Compatibility::Full),
    };
    let mut wanted = config(dir.path());
    wanted.schemas = vec![declared("\"int\""), declared("\"int\"")];
    let running = crate::start(wanted).await.unwrap();
    let steps = [
        ("GET /subjects/listens-value/versions", Value::Null, 200, json!([1])),
        ("GET /config/listens-value", Value::Null, 200, json!({"compatibilityLevel": "FULL"})),
    ];
    play(running.registry().unwrap(), &steps).await;
    running.stop().await;
    let mut wrong = config(dir.path());
    wrong.schemas = vec![declared("\"long\"")];
    let message = crate::start(wrong).await.err().unwrap().to_string();
    assert!(message.contains("listens-value") && message.contains("incompatible"), "{message}");
}
