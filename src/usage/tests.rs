use super::room::LARGEST;
use super::*;
use crate::holder::ObjectId;
use crate::object::HolderKind;

const S: fn(u64) -> Duration = Duration::from_secs;
const DELTA: Duration = Duration::from_secs(60);

fn entry(name: &str) -> EntryName {
    EntryName::new(name).unwrap()
}

fn entries(names: &[&str]) -> BTreeSet<EntryName> {
    names.iter().map(|name| entry(name)).collect()
}

fn epoch() -> Epoch {
    Epoch::new("e1")
}

/// A ConfigMap with two entries, and its controller.
struct Fixture {
    settler: Settler,
    usage: Usage,
    entries: BTreeSet<EntryName>,
    retained: BTreeSet<EntryName>,
    epoch: Epoch,
    ids: u32,
}

impl Fixture {
    fn new() -> Self {
        let (settler, usage) = (Settler::default(), Usage::new(epoch()));
        Self { settler, usage, entries: entries(&["v1", "v2"]), retained: BTreeSet::new(), epoch: epoch(), ids: 0 }
    }

    fn plan(&mut self, held: Option<&[&str]>, now: u64) -> Plan {
        let held = held.map(entries);
        let view = View {
            usage: &self.usage,
            entries: &self.entries,
            retained: &self.retained,
            held: held.as_ref(),
            needed_elsewhere: None,
        };
        let ids = &mut self.ids;
        let id = || {
            *ids += 1;
            SettlingId::new(&ids.to_string())
        };
        self.settler.plan(view, &self.epoch, DELTA, S(now), id)
    }

    /// Plans, and stores what is to be written.
    fn run(&mut self, held: &[&str], now: u64) -> Plan {
        let plan = self.plan(Some(held), now);
        self.usage = plan.write.clone().unwrap_or_else(|| self.usage.clone());
        plan
    }

    fn refuse(&mut self, name: &str) {
        self.ids += 1;
        let id = SettlingId::new(&self.ids.to_string());
        self.usage = self.usage.settle(&self.epoch, [&entry(name)], Why::Refused, || id.clone());
    }

    fn state(&self, name: &str) -> State<'_> {
        self.usage.state(&entry(name), &self.epoch)
    }
}

#[test]
fn a_refused_entry_is_due_after_more_than_delta_and_then_idle() {
    let mut c = Fixture::new();
    c.refuse("v1");
    assert_eq!(c.run(&["v2"], 100).due, BTreeMap::new());
    assert_eq!(c.run(&["v2"], 160).due, BTreeMap::new(), "exactly Δ is not enough");
    let due = c.run(&["v2"], 161).due;
    assert_eq!(due, BTreeMap::from([(entry("v1"), SettlingId::new("1"))]));
    let next = Settler::conclude(&c.usage, &c.epoch, &due, &BTreeSet::new()).unwrap();
    assert_eq!(next.state(&entry("v1"), &c.epoch), State::Idle);
    assert_eq!(next.state(&entry("v2"), &c.epoch), State::InUse);
}

#[test]
fn the_wake_up_comes_when_the_entry_is_due() {
    let mut c = Fixture::new();
    c.refuse("v1");
    let wake = c.run(&["v2"], 100).wake.unwrap();
    assert!(wake > S(160) && wake < S(161), "{wake:?}");
}

#[test]
fn a_holder_that_the_list_finds_takes_the_entry_back() {
    let mut c = Fixture::new();
    c.refuse("v1");
    let due = BTreeMap::from([(entry("v1"), SettlingId::new("1"))]);
    let next = Settler::conclude(&c.usage, &c.epoch, &due, &entries(&["v1"])).unwrap();
    assert!(next.is_empty());
}

#[test]
fn a_settling_that_is_another_one_by_now_is_left_alone() {
    let mut c = Fixture::new();
    c.refuse("v1");
    let due = BTreeMap::from([(entry("v1"), SettlingId::new("an older one"))]);
    assert_eq!(Settler::conclude(&c.usage, &c.epoch, &due, &BTreeSet::new()), None);
}

#[test]
fn a_settling_that_begins_again_waits_again() {
    let mut c = Fixture::new();
    c.refuse("v1");
    c.run(&["v2"], 0);
    c.usage = c.usage.without([&entry("v1")]);
    c.run(&["v2"], 50);
    c.refuse("v1");
    assert_eq!(c.run(&["v2"], 55).due, BTreeMap::new());
    assert_eq!(c.run(&["v2"], 61).due, BTreeMap::new());
    assert_eq!(c.run(&["v2"], 116).due.len(), 1);
}

#[test]
fn other_writes_do_not_restart_the_timer() {
    let mut c = Fixture::new();
    c.refuse("v1");
    c.run(&[], 0);
    c.refuse("v2");
    c.run(&[], 30);
    assert_eq!(c.run(&[], 61).due.keys().collect::<Vec<_>>(), [&entry("v1")]);
}

#[test]
fn a_holder_that_shows_up_cancels() {
    let mut c = Fixture::new();
    c.refuse("v1");
    c.run(&["v2"], 0);
    c.run(&["v1", "v2"], 10);
    assert_eq!(c.state("v1"), State::InUse);
}

#[test]
fn a_holder_that_shows_up_cancels_even_idle() {
    let mut c = Fixture::new();
    c.refuse("v1");
    let due = BTreeMap::from([(entry("v1"), SettlingId::new("1"))]);
    c.usage = Settler::conclude(&c.usage, &c.epoch, &due, &BTreeSet::new()).unwrap();
    c.run(&["v1"], 10);
    assert_eq!(c.state("v1"), State::InUse);
}

#[test]
fn nothing_begins_or_is_due_while_holders_are_unknown() {
    let mut c = Fixture::new();
    assert_eq!(c.plan(None, 0), Plan::default());
    assert_eq!(c.plan(None, 100_000), Plan::default());
    c.refuse("v1");
    c.plan(None, 200_000);
    assert_eq!(c.plan(None, 300_000).due, BTreeMap::new());
}

#[test]
fn a_quiet_entry_settles_unasked_after_ten_minutes() {
    let mut c = Fixture::new();
    assert_eq!(c.run(&["v2"], 0).wake, Some(S(600)));
    c.run(&["v2"], 599);
    assert_eq!(c.state("v1"), State::InUse);
    c.run(&["v2"], 600);
    assert!(matches!(c.state("v1"), State::Settling(_)));
    assert_eq!(c.state("v2"), State::InUse);
}

#[test]
fn each_lift_doubles_how_long_an_entry_must_be_quiet() {
    let mut c = Fixture::new();
    c.run(&["v2"], 0);
    c.run(&["v2"], 600);
    c.run(&["v2"], 601);
    assert!(matches!(c.state("v1"), State::Settling(_)));
    c.usage = c.usage.without([&entry("v1")]);
    c.run(&["v1", "v2"], 610);
    assert_eq!(c.run(&["v2"], 620).wake, Some(S(620 + 1200)));
    c.run(&["v2"], 1819);
    assert_eq!(c.state("v1"), State::InUse);
    c.run(&["v2"], 1820);
    assert!(matches!(c.state("v1"), State::Settling(_)));
}

#[test]
fn state_of_another_epoch_reads_as_in_use_and_is_cleared() {
    let mut c = Fixture::new();
    c.refuse("v1");
    c.epoch = Epoch::new("e2");
    assert_eq!(c.state("v1"), State::InUse);
    assert!(c.usage.marks(&entry("v1")), "a reference must still take it out");
    let written = c.plan(Some(&["v2"]), 1000).write.unwrap();
    assert_eq!(written.render(), None);
    let due = BTreeMap::from([(entry("v1"), SettlingId::new("1"))]);
    let concluded = Settler::conclude(&c.usage, &c.epoch, &due, &BTreeSet::new());
    assert!(concluded.is_none_or(|usage| usage.is_empty()), "an old Settling proves nothing");
}

#[test]
fn entries_that_are_gone_are_dropped() {
    let mut c = Fixture::new();
    c.refuse("v1");
    c.entries = entries(&["v2"]);
    c.run(&["v2"], 0);
    assert_eq!(c.usage.render(), None);
}

#[test]
fn the_annotation_is_compact_sorted_and_read_back() {
    let mut c = Fixture::new();
    c.refuse("v2");
    c.refuse("v1");
    let due = BTreeMap::from([(entry("v2"), SettlingId::new("1"))]);
    let usage = Settler::conclude(&c.usage, &c.epoch, &due, &BTreeSet::new()).unwrap();
    let text = usage.render().unwrap();
    assert_eq!(text, r#"{"epoch":"e1","idle":["v2"],"settling":{"v1":"2"}}"#);
    assert_eq!(Usage::parse(Some(&text)), usage);
}

#[test]
fn what_cannot_be_read_is_all_in_use() {
    let garbage = [
        "",
        "null",
        "{}",
        "[]",
        r#"{"epoch":"e1","idle":"v1"}"#,
        r#"{"epoch":"e1","idle":[""]}"#,
        r#"{"epoch":"e1","idle":["v1"],"settling":{"v1":"x"}}"#,
        r#"{"epoch":"e1","idle":["v1"],"more":1}"#,
        r#"{"epoch":"e1","idle":["v1"]"#,
    ];
    for text in garbage {
        assert_eq!(Usage::parse(Some(text)), Usage::default(), "{text}");
    }
    assert_eq!(Usage::parse(None), Usage::default());
}

#[test]
fn the_annotation_stays_small_and_a_refused_entry_finds_room() {
    let many: Vec<_> = (0..10_000).map(|n| entry(&format!("model-with-a-long-name-{n:05}"))).collect();
    let quiet = Usage::new(epoch()).settle(&epoch(), &many, Why::Quiet, || SettlingId::new("abcdefgh"));
    let full = quiet.render().unwrap().len();
    assert!(full <= LARGEST && full > LARGEST * 3 / 4, "{full}");
    let last = many.last().unwrap();
    assert_eq!(quiet.state(last, &epoch()), State::InUse);
    let still_quiet = quiet.settle(&epoch(), [last], Why::Quiet, || SettlingId::new("abcdefgh"));
    assert_eq!(still_quiet.state(last, &epoch()), State::InUse, "quiet entries displace nobody");
    let refused = quiet.settle(&epoch(), [last], Why::Refused, || SettlingId::new("abcdefgh"));
    assert!(matches!(refused.state(last, &epoch()), State::Settling(_)));
    assert!(refused.render().unwrap().len() <= LARGEST);
}

#[test]
fn a_retained_entry_settles_as_soon_as_nobody_holds_it_and_then_retires() {
    let mut fixture = Fixture::new();
    fixture.retained = entries(&["v1"]);
    assert_eq!(fixture.run(&["v1", "v2"], 0).write, None);
    assert_eq!(fixture.run(&["v2"], 1).retire, BTreeSet::new());
    assert!(matches!(fixture.state("v1"), State::Settling(_)), "it does not wait to be quiet");
    assert_eq!(fixture.state("v2"), State::InUse);

    fixture.run(&["v2"], 2);
    let due = fixture.run(&["v2"], 100).due;
    fixture.usage = Settler::conclude(&fixture.usage, &fixture.epoch, &due, &entries(&["v2"])).unwrap();
    let plan = fixture.run(&["v2"], 101);
    assert_eq!((plan.write, plan.retire), (None, entries(&["v1"])));
}

#[test]
fn a_retained_entry_that_comes_back_waits_by_delta_and_not_by_the_hour() {
    let mut fixture = Fixture::new();
    fixture.retained = entries(&["v1"]);
    fixture.run(&["v2"], 0);
    fixture.run(&["v1", "v2"], 1);
    fixture.run(&["v1", "v2"], 2);
    fixture.run(&["v2"], 3);
    assert_eq!(fixture.state("v1"), State::InUse, "a Job that runs each minute must not make it flap");
    assert_eq!(fixture.run(&["v2"], 4).wake, Some(S(123)));
    fixture.run(&["v2"], 123);
    assert!(matches!(fixture.state("v1"), State::Settling(_)), "somebody waits for its removal");
}

fn server(name: &str) -> ObjectId {
    ObjectId { kind: HolderKind::Deployment, namespace: "prod".into(), name: name.into() }
}

#[test]
fn a_departure_is_kept_in_every_epoch_beside_what_is_known_of_entries() {
    let usage = Usage::default().departing(&server("a"), "1").unwrap();
    assert_eq!(usage.render().unwrap(), r#"{"epoch":"","departing":{"Deployment/prod/a":"1"}}"#);
    assert_eq!(Usage::parse(usage.render().as_deref()), usage);
    let settling = usage.settle(&epoch(), [&entry("v1")], Why::Quiet, || SettlingId::new("x"));
    assert!(settling.departs(&server("a")) && !settling.departs(&server("b")));
    assert_eq!(settling.state(&entry("v2"), &epoch()), State::InUse, "it allows nothing");
    let due = [(entry("v1"), SettlingId::new("x"))].into();
    let idle = Settler::conclude(&settling, &epoch(), &due, &BTreeSet::new()).unwrap();
    assert!(idle.departs(&server("a")));
    assert!(idle.without([&entry("v1")]).retaining(|_| false).departs(&server("a")));
}

#[test]
fn a_departure_is_forgotten_after_more_than_delta_and_a_new_one_waits_anew() {
    let mut fixture = Fixture::new();
    fixture.usage = Usage::default().departing(&server("a"), "1").unwrap();
    let plan = fixture.run(&["v1", "v2"], 10);
    assert_eq!((plan.write, plan.wake), (None, Some(S(70) + TICK)));
    assert_eq!(fixture.run(&["v1", "v2"], 70).write, None, "exactly Δ is not enough");
    fixture.usage = fixture.usage.departing(&server("a"), "2").unwrap();
    assert_eq!(fixture.run(&["v1", "v2"], 71).write, None);
    assert_eq!(fixture.run(&["v1", "v2"], 131).write, None);
    fixture.run(&["v1", "v2"], 132);
    assert!(fixture.usage.is_empty());
}
