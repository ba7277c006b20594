//! Tests of the configuration as a whole: sources, rules, problems and what is shown.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use proptest::prelude::*;

use super::key::{Key, Spec};
use super::value::{Given, Value, masked, parse};
use super::*;

const WINDOW: Key<u32> = Key::count(
    "example.window",
    8,
    (1, 100),
    "8",
    "How much is under way at a time.",
);
const LEASE: Key<Duration> = Key::duration(
    "example.lease",
    "30s",
    (Duration::from_secs(1), Duration::from_secs(600)),
    "\"30s\"",
    "How long a lease lasts.",
);
const FRAME: Key<u64> = Key::size(
    "example.frame",
    "4MiB",
    (1024, 1 << 30),
    "\"4MiB\"",
    "Largest frame.",
);
const MODE: Key<String> = Key::choice(
    "example.mode",
    "fast",
    &["fast", "safe"],
    "\"safe\"",
    "How it is done.",
);
const HOOKS: Key<Vec<String>> = Key::urls(
    "example.hooks",
    &["https://", "http://"],
    "[\"https://a\"]",
    "Who is told.",
);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Example {
    window: u32,
    lease: Duration,
    frame: u64,
    mode: String,
    hooks: Vec<String>,
}

impl Settings for Example {
    const KEYS: &'static [&'static Spec] = &[
        WINDOW.spec(),
        LEASE.spec(),
        FRAME.spec(),
        MODE.spec(),
        HOOKS.spec(),
    ];

    fn read(values: &Values, problems: &mut Problems) -> Self {
        let (window, mode) = (values.get(&WINDOW), values.get(&MODE));
        if mode == "safe" && window > 50 {
            values.refuse(&WINDOW, "must be at most 50 in mode safe", problems);
        }
        Self {
            window,
            lease: values.get(&LEASE),
            frame: values.get(&FRAME),
            mode,
            hooks: values.get(&HOOKS),
        }
    }
}

fn inputs(file: &str, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Inputs {
    Inputs {
        file: Some(("a.toml".to_owned(), file.to_owned())),
        env: env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        flags: flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect(),
    }
}

fn resolve(inputs: &Inputs) -> Result<Config<Example>, Problems> {
    Config::resolve("127.0.0.1:8000", inputs).map_err(|refused| refused.0)
}

fn problems(inputs: &Inputs) -> Vec<String> {
    match resolve(inputs) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.all().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn nothing_given_means_every_default() {
    let config = resolve(&Inputs::default()).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.server.grace, Duration::from_secs(25));
    assert_eq!(config.redis.url, "redis://127.0.0.1:6379");
    let lease = Duration::from_secs(30);
    let mode = "fast".to_owned();
    assert_eq!(
        config.own,
        Example {
            window: 8,
            lease,
            frame: 4 << 20,
            mode,
            hooks: Vec::new()
        }
    );
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\n[log]\nfilter = \"warn\"\n";
    let env = [("HIVE_SERVER_LISTEN", "127.0.0.1:2")];
    let by_env = resolve(&inputs(file, &env, &[])).unwrap();
    assert_eq!(by_env.server.listen.port(), 2);
    assert_eq!(by_env.log.filter, "warn");
    let by_flag = resolve(&inputs(file, &env, &[("server.listen", "127.0.0.1:3")])).unwrap();
    assert_eq!(by_flag.server.listen.port(), 3);
}

#[test]
fn an_empty_variable_counts_as_not_given() {
    let config = resolve(&inputs("", &[("HIVE_EXAMPLE_WINDOW", "")], &[])).unwrap();
    assert_eq!(config.own.window, 8);
}

#[test]
fn all_problems_are_reported_at_once_with_value_source_rule_and_example() {
    let file = "[example]\nwindow = 0\nlease = \"soon\"\ncolour = 1\n[nothing]\nx = 1\n";
    let found = problems(&inputs(file, &[("HIVE_EXAMPLE_MODE", "wild")], &[]));
    assert_eq!(
        found,
        [
            "`example.window` `0` (file a.toml) must be an integer between 1 and 100, for \
             example 8",
            "`example.lease` `soon` (file a.toml) must be a duration between 1s and 10m, for \
             example \"30s\"",
            "`example.mode` `wild` (environment HIVE_EXAMPLE_MODE) must be one of fast, safe, for \
             example \"safe\"",
            "`example.colour` is not a key; section `example` has window, lease, frame, mode, \
             hooks",
            "`nothing.x` is not a key; the sections are server, admin, redis, log, example",
        ]
    );
}

#[test]
fn a_rule_over_several_keys_is_reported_beside_the_others() {
    let file = "[example]\nwindow = 51\nmode = \"safe\"\n[server]\ngrace = true\n";
    let found = problems(&inputs(file, &[], &[]));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].starts_with("`example.window` `51` (file a.toml) must be at most 50"));
}

#[test]
fn a_type_that_is_wrong_is_a_problem_like_any_other() {
    let file = "[example]\nwindow = \"8\"\nmode = 3\n[redis]\nallow_eviction = \"true\"\n";
    assert_eq!(problems(&inputs(file, &[], &[])).len(), 3);
}

#[test]
fn a_file_that_is_not_toml_is_named() {
    let found = problems(&inputs("[server", &[], &[]));
    assert!(found[0].starts_with("`a.toml` is not TOML:"), "{found:?}");
}

#[test]
fn an_address_that_others_reach_is_refused_with_the_reason() {
    let given = [("server.listen", "192.0.2.1:8000")];
    let found = problems(&inputs("", &[], &given));
    assert!(found[0].contains("`192.0.2.1:8000` (flag)"), "{found:?}");
    assert!(
        found[0].contains("unless `server.allow_unauthenticated` is true"),
        "{found:?}"
    );
    let allowed = "[server]\nallow_unauthenticated = true\n";
    assert!(resolve(&inputs(allowed, &[], &given)).is_ok());
}

#[test]
fn the_admin_port_keeps_the_same_rule() {
    assert_eq!(
        problems(&inputs("[admin]\nlisten = \"0.0.0.0:9100\"\n", &[], &[])).len(),
        1
    );
}

#[test]
fn listening_everywhere_needs_an_address_to_advertise() {
    let file = "[server]\nallow_unauthenticated = true\nlisten = \"0.0.0.0:8000\"\n";
    let found = problems(&inputs(file, &[], &[]));
    assert!(
        found[0].starts_with("`server.advertise` must be set"),
        "{found:?}"
    );
    let named = [("HIVE_SERVER_ADVERTISE", "gateway-0:8000")];
    assert_eq!(
        resolve(&inputs(file, &named, &[]))
            .unwrap()
            .server
            .advertise,
        "gateway-0:8000"
    );
}

#[test]
fn localhost_is_a_loopback_address() {
    let config = resolve(&inputs("", &[], &[("server.listen", "localhost:81")])).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:81");
}

#[test]
fn a_password_in_a_url_is_refused_and_never_shown() {
    let found = problems(&inputs(
        "",
        &[("HIVE_REDIS_URL", "redis://me:hunter2@db:6379")],
        &[],
    ));
    assert!(found[0].contains("must not carry a password"), "{found:?}");
    assert!(found[0].contains("redis://me:***@db:6379"), "{found:?}");
    assert!(!found[0].contains("hunter2"), "{found:?}");
}

#[test]
fn a_list_of_urls_comes_from_the_file_or_with_commas_from_the_environment() {
    let read = |file: &str, env: &str| {
        let variable = ("HIVE_EXAMPLE_HOOKS", env);
        let config = resolve(&inputs(file, &[variable], &[]));
        config.map(|config| (config.own.hooks.clone(), config.values.render()))
    };
    let file = "[example]\nhooks = [\"https://a\", \"http://b/c\"]\n";
    let (hooks, shown) = read(file, "").unwrap();
    assert_eq!(hooks, ["https://a", "http://b/c"]);
    assert!(
        shown.contains("hooks = [\"https://a\", \"http://b/c\"]"),
        "{shown}"
    );
    let (hooks, _) = read(file, "https://d, http://e").unwrap();
    assert_eq!(hooks, ["https://d", "http://e"]);
    assert_eq!(read("", "").unwrap().0, [""; 0]);
    for wrong in ["ftp://a", "https://", "https://a,,", "https://me:hunter2@a"] {
        let found = problems(&inputs("", &[("HIVE_EXAMPLE_HOOKS", wrong)], &[]));
        assert!(
            found[0].contains("must be a list of at most 64 URLs"),
            "{found:?}"
        );
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
    for wrong in ["\"https://a\"", "[1]", "[\"https://me:hunter2@a\"]"] {
        let found = problems(&inputs(&format!("[example]\nhooks = {wrong}\n"), &[], &[]));
        assert!(
            found[0].contains("must be a list of at most 64 URLs"),
            "{found:?}"
        );
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}

#[test]
fn a_password_comes_from_its_file_and_is_never_shown() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "hunter2").unwrap();
    let path = file.path().display().to_string();
    let config = resolve(&inputs("", &[("HIVE_REDIS_PASSWORD_FILE", &path)], &[])).unwrap();
    assert_eq!(config.redis.password.as_ref().unwrap().expose(), "hunter2");
    assert!(!format!("{config:?}{}", config.values.render()).contains("hunter2"));
}

#[test]
fn a_password_file_that_is_missing_is_a_problem() {
    let file = "[redis]\npassword_file = \"/nowhere/secret\"\n";
    let found = problems(&inputs(file, &[], &[]));
    assert!(found[0].contains("must be readable"), "{found:?}");
}

#[test]
fn a_variable_that_looks_like_a_key_and_is_none_is_a_warning() {
    let env = [
        ("HIVE_REDIS_SERVER", "/usr/bin/redis-server"),
        ("HIVE_URL", "http://127.0.0.1:8000"),
        ("HIVE_REDIS_URI", "redis://db"),
        ("HIVE_REDIS_URL", "redis://db"),
    ];
    let config = resolve(&inputs("", &env, &[])).unwrap();
    let expected = "environment variable `HIVE_REDIS_URI` = `redis://db` sets no key";
    assert_eq!(config.values.warnings(), [expected]);
}

#[test]
fn every_key_is_shown_with_its_value_and_source_as_toml() {
    let env = [("HIVE_EXAMPLE_WINDOW", "9")];
    let config = resolve(&inputs("[example]\nlease = 60\n", &env, &[])).unwrap();
    let shown = config.values.render();
    assert!(
        shown.contains("window = 9  # environment HIVE_EXAMPLE_WINDOW\n"),
        "{shown}"
    );
    assert!(shown.contains("lease = 60  # file a.toml\n"), "{shown}");
    assert!(shown.contains("mode = \"fast\"  # default\n"), "{shown}");
    assert!(shown.contains("# advertise is not set\n"), "{shown}");
    let again = resolve(&inputs(&shown, &[], &[])).unwrap();
    assert_eq!(again.own, config.own);
}

#[test]
fn the_reference_sets_every_key_to_its_default() {
    let listen = "127.0.0.1:8000";
    let text = reference("hive-example", &specs::<Example>(listen));
    assert_eq!(
        check_reference::<Example>("hive-example", listen, &text),
        Ok(())
    );
    let other = text.replace("window = 8", "window = 9");
    assert!(check_reference::<Example>("hive-example", listen, &other).is_err());
}

#[test]
fn a_log_filter_that_no_parser_survives_is_a_problem() {
    let found = problems(&inputs("", &[], &[("log.filter", "\u{b}\u{2c00}=")]));
    assert!(found[0].ends_with("must be ASCII, for example \"hive_gateway=debug,info\""));
}

#[test]
fn a_duration_is_seconds_without_a_unit() {
    let rule = LEASE.spec().rule;
    let minute = Value::Duration(Duration::from_secs(60));
    for given in ["60", "60s", "1m"] {
        assert_eq!(
            parse(rule, &Given::Text(given.to_owned())),
            Ok(minute.clone()),
            "{given}"
        );
    }
    assert_eq!(parse(rule, &Given::Toml(60.into())), Ok(minute));
    assert!(parse(rule, &Given::Toml((-60).into())).is_err());
}

#[test]
fn a_url_without_a_password_is_shown_as_it_is() {
    for url in [
        "redis://db:6379/0",
        "redis://me@db:6379",
        "redis+unix:///run/a.sock",
    ] {
        assert_eq!(masked(url), url);
    }
    assert_eq!(masked("redis://:a:b@c@db"), "redis://:***@db");
    assert_eq!(
        masked("redis+unix:///a?db=1&password=b&c=d"),
        "redis+unix:///a?db=1&password=***&c=d"
    );
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in ".{0,40}") {
        let values: Vec<_> = specs::<Example>("127.0.0.1:0")
            .iter()
            .map(|spec| (spec.variable(), text.clone()))
            .collect();
        let env: BTreeMap<_, _> = values.into_iter().collect();
        drop(resolve(&Inputs { env, ..Inputs::default() }));
    }

    #[test]
    fn a_size_in_kibibytes_is_that_many_times_1024_bytes(count in 1_u64..1_000_000) {
        let given = Given::Text(format!("{count}KiB"));
        prop_assert_eq!(parse(FRAME.spec().rule, &given), Ok(Value::Count(count * 1024)));
    }
}
