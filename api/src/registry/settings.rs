//! Compatibility levels and modes, for one subject or for all.

use broker::{Compatibility, RegistryMode};
use serde_json::{Value, json};

use super::call::{Call, plain_subject};
use super::fault::Fault;

/// `GET`, `PUT` and `DELETE /config[/{s}]`. Reading says `compatibilityLevel`, writing `compatibility`.
pub async fn config(call: &Call, method: &str, subject: Option<&&str>) -> Result<Value, Fault> {
    let subject = subject.map_or("", |subject| plain_subject(subject));
    let schemas = call.app.broker.schemas();
    match method {
        "GET" => schemas.read(|state| {
            let own = state.settings(subject).compatibility;
            let level = match own {
                None if subject.is_empty() || call.flag("defaultToGlobal") => state.compatibility(subject),
                own => own.ok_or_else(|| Fault::no_subject_config(subject))?,
            };
            Ok(json!({"compatibilityLevel": level.name()}))
        }),
        "PUT" => {
            let body = call.json()?;
            let level = body.get("compatibility").and_then(Value::as_str).and_then(Compatibility::parse);
            let level = level.ok_or_else(Fault::invalid_compatibility)?;
            schemas.change(|state| Ok::<_, Fault>((state.set_compatibility(subject, Some(level))?, ()))).await?;
            Ok(json!({"compatibility": level.name()}))
        }
        "DELETE" => {
            let before = schemas.change(|state| {
                let before = state.settings(subject).compatibility;
                if before.is_none() && !subject.is_empty() {
                    return Err(Fault::no_subject_config(subject));
                }
                Ok((state.set_compatibility(subject, None)?, before))
            });
            let level = before.await?.filter(|_| !subject.is_empty()).unwrap_or_default();
            Ok(json!({"compatibilityLevel": level.name()}))
        }
        _ => Err(Fault::unknown_route()),
    }
}

/// `GET`, `PUT` and `DELETE /mode[/{s}]`.
pub async fn mode(call: &Call, method: &str, subject: Option<&&str>) -> Result<Value, Fault> {
    let subject = subject.map_or("", |subject| plain_subject(subject));
    let schemas = call.app.broker.schemas();
    match method {
        "GET" => schemas.read(|state| {
            let own = state.settings(subject).mode;
            let mode = match own {
                None if subject.is_empty() || call.flag("defaultToGlobal") => state.mode(subject),
                own => own.ok_or_else(|| Fault::no_subject_mode(subject))?,
            };
            Ok(json!({"mode": mode.name()}))
        }),
        "PUT" => {
            let body = call.json()?;
            let mode = body.get("mode").and_then(Value::as_str).and_then(RegistryMode::parse);
            let mode = mode.ok_or_else(Fault::invalid_mode)?;
            let force = call.flag("force");
            schemas.change(|state| Ok::<_, Fault>((state.set_mode(subject, Some(mode), force)?, ()))).await?;
            Ok(json!({"mode": mode.name()}))
        }
        "DELETE" => {
            let before = schemas.change(|state| {
                let before = state.settings(subject).mode;
                if before.is_none() && !subject.is_empty() {
                    return Err(Fault::no_subject_mode(subject));
                }
                Ok((state.set_mode(subject, None, true)?, before))
            });
            let mode = before.await?.filter(|_| !subject.is_empty()).unwrap_or_default();
            Ok(json!({"mode": mode.name()}))
        }
        _ => Err(Fault::unknown_route()),
    }
}
