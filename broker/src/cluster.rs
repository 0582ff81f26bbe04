//! Whose data it is: the cluster's id, made when a store is new, and made anew for a copy that goes on as a cluster of its own.

use std::path::Path;

use crate::base64_url;
use crate::config::BrokerConfig;
use crate::error::Result;
use crate::lane::{Ack, Change, Lane};
use crate::log::keys;
use crate::store::{Family, Store, Writes};

/// `meta` key of the cluster's id: UTF-8, 22 characters.
const CLUSTER_ID_KEY: &[u8] = b"cluster-id";

/// The id of the cluster whose store it is; a new store gets one.
pub(crate) async fn cluster_id(store: &Store, lane: &Lane) -> Result<String> {
    if let Some(stored) = store.get(Family::Meta, CLUSTER_ID_KEY)? {
        return String::from_utf8(stored).map_err(|e| keys::damaged("cluster id", e.as_bytes()));
    }
    let id = new_id();
    let change = Change::Put(Family::Meta, CLUSTER_ID_KEY.to_vec(), id.clone().into_bytes());
    lane.commit(vec![change], Ack::Durable).await?;
    Ok(id)
}

/// Makes the store in `data_dir`, a copy that no server has begun on, one of another cluster, and says which. Blocks.
///
/// # Errors
/// `Config` when it cannot be opened, `Storage` when it cannot be written.
pub fn rename_cluster(data_dir: &Path) -> Result<String> {
    let store = Store::open(&BrokerConfig { data_dir: data_dir.to_path_buf(), ..BrokerConfig::default() })?;
    let id = new_id();
    let mut writes = Writes::new(&store);
    writes.put(Family::Meta, CLUSTER_ID_KEY, id.as_bytes());
    store.write(writes)?;
    store.sync()?;
    Ok(id)
}

fn new_id() -> String {
    base64_url(uuid::Uuid::new_v4().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_becomes_a_cluster_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let ids: Vec<String> = (0..2).map(|_| rename_cluster(dir.path()).unwrap()).collect();
        assert_ne!(ids[0], ids[1]);
        let store =
            Store::open(&BrokerConfig { data_dir: dir.path().to_path_buf(), ..BrokerConfig::default() }).unwrap();
        assert_eq!(store.get(Family::Meta, CLUSTER_ID_KEY).unwrap().unwrap(), ids[1].as_bytes());
        assert_eq!(ids[1].len(), 22);
    }
}
