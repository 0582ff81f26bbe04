//! Which connections are let in: `max.connections`, `max.connections.per.ip` with its overrides, and `max.connection.creation.rate`.
//! The settings are read for each connection, so that a change acts on the next one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::settings::BrokerSettings;
use crate::topic_config::items;

const SECOND_MS: i64 = 1_000;

/// Who is in. Holds: the connections by address, and how many came in the second that runs. Accepting and ending connections change
/// it. Always true: each [`Guest`] is counted once.
#[derive(Debug, Default)]
pub(super) struct Admission {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
    /// The second that runs, and the connections that came in it.
    second: i64,
    came: i64,
}

/// A connection that was let in; it leaves when it is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    admission: Arc<Admission>,
    address: IpAddr,
}

/// Why a connection is not let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are too many; the setting that says so.
    Full(&'static str),
    /// Too many came in this second; it is let in after this time.
    Wait(Duration),
}

impl Admission {
    /// Lets a connection of `address` in at the time `now_ms`, if the settings allow it.
    pub(super) fn admit(
        self: &Arc<Self>,
        settings: &BrokerSettings,
        (address, now_ms): (IpAddr, i64),
    ) -> Result<Guest, Refused> {
        let address = address.to_canonical();
        let mut inside = self.inside.lock();
        let most = |name| usize::try_from(settings.whole(name)).unwrap_or(0);
        if inside.all >= most("max.connections") {
            return Err(Refused::Full("max.connections"));
        }
        let of_address = inside.by_address.get(&address).copied().unwrap_or(0);
        let overrides = settings.value("max.connections.per.ip.overrides").unwrap_or_default();
        if of_address >= override_of(&overrides, address).unwrap_or_else(|| most("max.connections.per.ip")) {
            return Err(Refused::Full("max.connections.per.ip"));
        }
        let second = now_ms.div_euclid(SECOND_MS);
        if inside.second != second {
            (inside.second, inside.came) = (second, 0);
        }
        if inside.came >= settings.whole("max.connection.creation.rate").max(1) {
            let rest = SECOND_MS - now_ms.rem_euclid(SECOND_MS);
            return Err(Refused::Wait(Duration::from_millis(rest.unsigned_abs())));
        }
        inside.came += 1;
        inside.all += 1;
        *inside.by_address.entry(address).or_default() += 1;
        Ok(Guest { admission: self.clone(), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut inside = self.admission.inside.lock();
        inside.all -= 1;
        if let Some(count) = inside.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                inside.by_address.remove(&self.address);
            }
        }
    }
}

/// The bound that a list of `address:count` gives to one address.
fn override_of(overrides: &str, address: IpAddr) -> Option<usize> {
    items(overrides).find_map(|item| {
        let (host, count) = item.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_it = host.parse::<IpAddr>().map_or(host == "localhost" && address.is_loopback(), |one| one == address);
        is_it.then(|| count.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Resource, Values};
    use crate::{Broker, BrokerConfig, Clock};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[tokio::test]
    async fn bounds_act_as_they_are_changed() {
        let dir = tempfile::tempdir().unwrap();
        let config = BrokerConfig { data_dir: dir.path().to_owned(), ..BrokerConfig::default() };
        let broker = Broker::open(config, Clock::manual(0)).await.unwrap();
        let set = async |pairs: &[(&str, &str)]| {
            let values: Values = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            broker.change_settings(Resource::Broker, |_| Ok(values)).await.unwrap();
        };
        let admission = Arc::new(Admission::default());
        let admit = |address, now| admission.admit(broker.settings(), (address, now));
        set(&[("max.connections.per.ip", "1"), ("max.connections.per.ip.overrides", "10.0.0.1:2")]).await;
        let first = admit(HERE, 0).unwrap();
        assert_eq!(admit(HERE, 0).unwrap_err(), Refused::Full("max.connections.per.ip"));
        let (second, third) = (admit(THERE, 0).unwrap(), admit(THERE, 0).unwrap());
        assert_eq!(admit(THERE, 0).unwrap_err(), Refused::Full("max.connections.per.ip"));
        set(&[("max.connections", "3")]).await;
        assert_eq!(admit(HERE, 0).unwrap_err(), Refused::Full("max.connections"));
        drop(first);
        let fourth = admit(HERE, 0).unwrap();
        set(&[("max.connection.creation.rate", "1")]).await;
        assert_eq!(admit(HERE, 400).unwrap_err(), Refused::Wait(Duration::from_millis(600)));
        let fifth = admit(HERE, 1_000).unwrap();
        drop((second, third, fourth, fifth));
        assert!(admission.inside.lock().by_address.is_empty() && admission.inside.lock().all == 0);
    }
}
