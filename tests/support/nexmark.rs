//! Events of the Nexmark benchmark, after its public description: people register, put things up for auction, and bid for what
//! others put up. Suite and benches draw them here.
//!
//! Of fifty events in a row one is a person, three are auctions, the rest are bids. Half of the bids go to the newest hot auction,
//! three quarters are of the newest hot bidder, three quarters of the auctions of the newest hot seller; the others are spread over
//! those that are still active, and now and then over some that come a moment later. Each event follows from the seed and its
//! number alone.

use broker::Random;
use serde::Serialize;

/// Events of one round, and how many of them come before the bids.
const ROUND: u64 = 50;
const PEOPLE: u64 = 1;
const AUCTIONS: u64 = 3;
/// The first id of people, and of auctions.
const FIRST_ID: u64 = 1_000;
/// Of so many in a row the first one is hot; of people the second one is the hot bidder.
const HOT: u64 = 100;
/// Ids that are named although they come a moment later.
const LEAD: u64 = 10;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
const CHANNELS: u64 = 10_000;
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const FIRST_NAMES: [&str; 8] = ["Ada", "Boris", "Chloe", "Dario", "Emma", "Farid", "Greta", "Hugo"];
const LAST_NAMES: [&str; 8] = ["Arnaud", "Berg", "Costa", "Dubois", "Eklund", "Ferrari", "Grant", "Horvat"];
const CITIES: [(&str, &str); 8] = [
    ("Phoenix", "AZ"),
    ("Palo Alto", "CA"),
    ("San Francisco", "CA"),
    ("Boise", "ID"),
    ("Portland", "OR"),
    ("Bend", "OR"),
    ("Seattle", "WA"),
    ("Cheyenne", "WY"),
];

/// What differs from one run to another.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub seed: u64,
    /// Event time of the first event.
    pub first_ms: i64,
    /// From one event to the next.
    pub gap_ms: i64,
    /// After so many events a pause of so many milliseconds.
    pub pause: (u64, i64),
    /// The newest people, of whom sellers and bidders are.
    pub people_active: u64,
    /// The newest auctions, to which bids go.
    pub auctions_active: u64,
    /// Events that come in another order than their times, so many together.
    pub shuffled: u64,
}

impl Default for Settings {
    /// As the benchmark has it at a hundred events a second, in order and without pauses.
    fn default() -> Settings {
        Settings {
            seed: 1,
            first_ms: 1_741_006_800_000,
            gap_ms: 10,
            pause: (u64::MAX, 0),
            people_active: 1_000,
            auctions_active: 100,
            shuffled: 1,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    pub id: i64,
    pub name: String,
    pub email_address: String,
    pub credit_card: String,
    pub city: &'static str,
    pub state: &'static str,
    pub date_time: i64,
    pub extra: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Auction {
    pub id: i64,
    pub item_name: String,
    pub description: String,
    pub initial_bid: i64,
    pub reserve: i64,
    pub date_time: i64,
    pub expires: i64,
    pub seller: i64,
    pub category: i64,
    pub extra: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bid {
    pub auction: i64,
    pub bidder: i64,
    pub price: i64,
    pub channel: String,
    pub url: String,
    pub date_time: i64,
    pub extra: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Event {
    Person(Person),
    Auction(Auction),
    Bid(Bid),
}

impl Event {
    /// As it is written to its topic.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("an event has no key that is no text")
    }
}

/// The events in the order in which they come.
pub fn events(settings: Settings, count: u64) -> impl Iterator<Item = Event> {
    (0..count).map(move |place| event(&settings, number_at(&settings, place)))
}

/// The longest that an auction lasts: two times what the active ones take to come.
pub fn auction_ms_max(settings: &Settings) -> i64 {
    let events = settings.auctions_active * ROUND / AUCTIONS;
    1 + 2 * events as i64 * settings.gap_ms
}

/// Which event comes at a place. In each group that is shuffled all come once, as no group is as large as the factor, a prime.
fn number_at(settings: &Settings, place: u64) -> u64 {
    let group = settings.shuffled.clamp(1, 4_096);
    place / group * group + place % group * 4_099 % group
}

fn time_of(settings: &Settings, number: u64) -> i64 {
    let (events, pause_ms) = settings.pause;
    settings.first_ms + number as i64 * settings.gap_ms + (number / events) as i64 * pause_ms
}

fn event(settings: &Settings, number: u64) -> Event {
    // Numbers far apart, so that no two sequences meet.
    let mut draw = Draw(Random::new(settings.seed ^ number.wrapping_mul(0xd134_2543_de82_ef95)));
    let (round, place) = (number / ROUND, number % ROUND);
    let (people, date_time) = (round + 1, time_of(settings, number));
    if place < PEOPLE {
        return Event::Person(person(&mut draw, round, date_time));
    }
    let drawn = Drawn { people, settings };
    match place - PEOPLE {
        auction if auction < AUCTIONS => {
            let id = (FIRST_ID + round * AUCTIONS + auction) as i64;
            Event::Auction(drawn.auction(&mut draw, id, date_time))
        }
        _ => Event::Bid(drawn.bid(&mut draw, (round + 1) * AUCTIONS, date_time)),
    }
}

/// Numbers of one event.
struct Draw(Random);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next() % bound
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Cents from one to a million, each power of ten as often as another.
    fn price(&mut self) -> i64 {
        (100.0 * 10_f64.powf(6.0 * self.0.uniform())).round() as i64
    }

    fn letters(&mut self, count: u64) -> String {
        (0..count).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }

    /// One of the newest, or of those that come a moment later.
    fn active(&mut self, known: u64, active: u64) -> i64 {
        let active = active.min(known);
        (FIRST_ID + known - active + self.below(active + LEAD)) as i64
    }
}

fn person(draw: &mut Draw, number: u64, date_time: i64) -> Person {
    let (first, last, (city, state)) = (draw.of(&FIRST_NAMES), draw.of(&LAST_NAMES), draw.of(&CITIES));
    let card: Vec<String> = (0..4).map(|_| format!("{:04}", draw.below(10_000))).collect();
    Person {
        id: (FIRST_ID + number) as i64,
        name: format!("{first} {last}"),
        email_address: format!("{}@{}.example", draw.letters(7), draw.letters(5)),
        credit_card: card.join(" "),
        city,
        state,
        date_time,
        extra: draw.letters(40),
    }
}

/// Who is there when an event comes.
struct Drawn<'a> {
    people: u64,
    settings: &'a Settings,
}

impl Drawn<'_> {
    fn auction(&self, draw: &mut Draw, id: i64, date_time: i64) -> Auction {
        let (initial_bid, above) = (draw.price(), draw.price());
        let seller = match draw.below(4) {
            0 => draw.active(self.people, self.settings.people_active),
            _ => (FIRST_ID + (self.people - 1) / HOT * HOT) as i64,
        };
        let length_ms = 1 + draw.below(auction_ms_max(self.settings).unsigned_abs()) as i64;
        Auction {
            id,
            item_name: draw.letters(12),
            description: draw.letters(60),
            initial_bid,
            reserve: initial_bid + above,
            date_time,
            expires: date_time + length_ms,
            seller,
            category: (FIRST_CATEGORY + draw.below(CATEGORIES)) as i64,
            extra: draw.letters(250),
        }
    }

    fn bid(&self, draw: &mut Draw, auctions: u64, date_time: i64) -> Bid {
        let auction = match draw.below(2) {
            0 => draw.active(auctions, self.settings.auctions_active),
            _ => (FIRST_ID + (auctions - 1) / HOT * HOT) as i64,
        };
        let bidder = match draw.below(4) {
            0 => draw.active(self.people, self.settings.people_active),
            _ => (FIRST_ID + (self.people - 1) / HOT * HOT + 1) as i64,
        };
        let (channel, url) = match draw.below(2) {
            0 => {
                let number = draw.below(CHANNELS);
                (format!("channel-{number}"), format!("https://auctions.example/item?channel_id={number}"))
            }
            _ => (draw.of(&HOT_CHANNELS).to_owned(), format!("https://auctions.example/{}/item", draw.letters(5))),
        };
        Bid { auction, bidder, price: draw.price(), channel, url, date_time, extra: draw.letters(20) }
    }
}
