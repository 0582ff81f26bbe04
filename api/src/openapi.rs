//! `/openapi.json`, made from the list of routes.

use axum::Json;
use serde_json::{Map, Value, json};

use crate::access::Need;
use crate::routes::{Doc, Routes, docs};

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes.get("/openapi.json", Doc::new("This description of all routes").need(Need::Nothing), answer)
}

async fn answer() -> Json<Value> {
    Json(document(&docs()))
}

fn document(docs: &[Doc]) -> Value {
    let mut paths = Map::new();
    for doc in docs {
        let path = paths.entry(doc.path).or_insert_with(|| json!({}));
        path[doc.method] = operation(doc);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Millpond",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Whole numbers are JSON numbers with all their digits (beyond 2^53 read them from the text), DECIMAL is text, \
                TIMESTAMP is RFC 3339 in UTC. Each problem is RFC 9457 JSON whose detail says what to do next.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Problem": problem_schema(), "Table": table_schema()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(doc: &Doc) -> Value {
    let mut parameters: Vec<Value> = path_names(doc.path)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(doc.query.iter().map(
        |(name, meaning)| json!({"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}),
    ));
    let content: Map<String, Value> = doc.answers.iter().map(|kind| (kind.to_string(), json!({}))).collect();
    let problem = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
    let mut operation = json!({
        "summary": doc.summary,
        "operationId": operation_id(doc),
        "parameters": parameters,
        "responses": {
            "200": {"description": "the answer", "content": content},
            "default": {"description": "a problem", "content": problem},
        },
    });
    if let Some(scope) = doc.need.and_then(Need::scope) {
        // Where no tokens are declared, everybody may do everything.
        operation["security"] = json!([{}, {"token": [scope]}]);
    }
    if let Some(example) = doc.body {
        let example: Value = serde_json::from_str(example).unwrap_or(Value::Null);
        operation["requestBody"] = json!({"required": true, "content": {"application/json": {"example": example}}});
    }
    operation
}

fn path_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| name.trim_start_matches('*'))
}

fn operation_id(doc: &Doc) -> String {
    let words = doc.path.replace(['/', '{', '}', '.', '*'], " ");
    words.split_whitespace().fold(doc.method.to_owned(), |id, word| format!("{id}_{word}"))
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "description": "urn:millpond:problem:<slug>"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "what happened and what to do next"},
        },
    })
}

fn table_schema() -> Value {
    json!({
        "type": "object",
        "required": ["columns", "rows", "offsets"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "type": {"type": "string"}}}},
            "rows": {"type": "array", "items": {"type": "array"}},
            "offsets": {"type": "object", "description": "per topic and partition: the next offset that the answer has not seen"},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_listed_with_its_parameters() {
        let docs = docs();
        let document = document(&docs);
        for doc in &docs {
            let operation = &document["paths"][doc.path][doc.method];
            assert!(operation["summary"].is_string(), "{} {}", doc.method, doc.path);
            let listed = operation["parameters"].as_array().unwrap().len();
            assert_eq!(listed, path_names(doc.path).count() + doc.query.len(), "{}", doc.path);
            assert_eq!(operation["requestBody"].is_object(), doc.body.is_some(), "{}", doc.path);
            assert!(
                operation["requestBody"]["content"]["application/json"]["example"] != json!(null) || doc.body.is_none()
            );
        }
        let ids: std::collections::HashSet<String> = docs.iter().map(operation_id).collect();
        assert_eq!(ids.len(), docs.len(), "operation ids are unique");
        for path in [
            "/v1/views",
            "/v1/views/{view}",
            "/v1/sql",
            "/v1/topics/{topic}/records",
            "/v1/lag",
            "/metrics",
            "/health/ready",
            "/openapi.json",
            "/",
        ] {
            assert!(document["paths"][path].is_object(), "{path}");
        }
    }
}
