//! The schemas of the configuration, registered at start.

use broker::{Broker, NewSchema, Registration, SchemaState};

use super::fault::Fault;
use super::{meaning, subjects};
use crate::config::SchemaDeclaration;

/// Registers a schema if its subject does not have it, and sets the subject's level.
///
/// # Errors
/// What is wrong with it, or how it does not fit the subject's earlier versions.
pub async fn declare(broker: &Broker, declared: &SchemaDeclaration) -> Result<(), String> {
    let schemas = broker.schemas();
    if let Some(level) = declared.compatibility {
        let set = |state: &SchemaState| match state.settings(&declared.subject).compatibility == Some(level) {
            true => Ok((Vec::new(), ())),
            false => Ok::<_, Fault>((state.set_compatibility(&declared.subject, Some(level))?, ())),
        };
        schemas.change(set).await.map_err(|fault| fault.message)?;
    }
    let registered = schemas.change(|state| {
        let SchemaDeclaration { subject, kind, schema, references, .. } = declared.clone();
        let schema = meaning::settled(state, NewSchema { kind, text: schema, references })?;
        if state.find(&subject, &schema, false).is_some() {
            return Ok((Vec::new(), None));
        }
        let new = meaning::parse(state, kind, &schema.text, &schema.references)?;
        let misfits = meaning::misfits(state, state.compatibility(&subject), &new, &subjects::texts(state, &subject))?;
        if !misfits.is_empty() {
            return Err(Fault::incompatible(&subject, &misfits));
        }
        let registration = Registration { subject, ..Registration::default() };
        let (records, version) = state.register(&registration, schema)?;
        Ok::<_, Fault>((records, Some(version)))
    });
    if let Some(version) = registered.await.map_err(|fault| fault.message)? {
        tracing::info!(
            subject = declared.subject,
            id = version.id,
            version = version.version,
            "a schema was registered"
        );
    }
    Ok(())
}
