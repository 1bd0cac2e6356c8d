//! What stands in config/ is what Cutwater reads and writes.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use cutwater::config::Config;

const EXAMPLE: &str = include_str!("../config/cutwater.example.toml");

fn with_passwords(text: &str) -> String {
    text.replace("${SOURCE_PASSWORD}", "one").replace("${TARGET_PASSWORD}", "two")
}

#[test]
fn the_example_config_loads() {
    let config = Config::parse(&with_passwords(EXAMPLE), "cutwater.example.toml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.migration.name, "shop");
    assert!(config.telemetry.listen.is_some());
}

/// A commented-out option that no longer exists, or that has another default by now, would teach the wrong thing.
#[test]
fn every_option_that_the_example_comments_out_exists_with_that_default() {
    let is_option = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default();
        line.starts_with('[') || (line.contains(" = ") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let everything: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(option) if is_option(option) => option.to_owned() + "\n",
            _ => line.to_owned() + "\n",
        })
        .collect();
    let config = Config::parse(&with_passwords(&everything), "uncommented").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.transform.len(), 1);
    let defaults = Config::parse(&with_passwords(EXAMPLE), "cutwater.example.toml").unwrap();
    assert_eq!(format!("{:?}", config.apply), format!("{:?}", defaults.apply));
    assert_eq!(config.snapshot.workers, defaults.snapshot.workers);
    assert_eq!(config.snapshot.chunk_rows, defaults.snapshot.chunk_rows);
    assert_eq!(config.snapshot.resume_rows, defaults.snapshot.resume_rows);
    assert_eq!(config.target.existing, defaults.target.existing);
    assert_eq!(config.cutover.sequence_margin, defaults.cutover.sequence_margin);
    assert_eq!(config.cutover.max_verify_age, defaults.cutover.max_verify_age);
}

/// A dashboard or an alert over a metric that nobody writes shows "no data", which looks like "all is well".
#[test]
fn dashboards_and_alerts_use_only_metrics_that_exist() {
    let written = include_str!("../src/telemetry/metric.rs");
    for (file, text) in [
        ("alerts.yml", include_str!("../config/alerts.yml")),
        ("cutwater.json", include_str!("../config/grafana/dashboards/cutwater.json")),
        ("operations.md", include_str!("../docs/operations.md")),
    ] {
        let used: Vec<&str> = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| word.starts_with("cutwater_"))
            .map(|word| word.trim_end_matches("_bucket"))
            .filter(|word| *word != "cutwater_")
            .collect();
        assert!(used.len() > 3, "{file}");
        for metric in used {
            assert!(written.contains(&format!("\"{metric}\"")), "{file} uses {metric}, which is not written");
        }
    }
}

#[test]
fn every_test_that_the_guarantees_name_exists_in_the_file_they_name() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let (mut file, mut checked) = (String::new(), 0);
    for word in text.split('`').skip(1).step_by(2) {
        if word.ends_with(".rs") {
            file = std::fs::read_to_string(root.join("tests").join(word))
                .unwrap_or_else(|_| panic!("there is no tests/{word}"));
        } else if word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            let known = file.contains(&format!("fn {word}("));
            assert!(
                known || word.matches('_').count() < 3,
                "docs/guarantees.md names a test that is not there: {word}"
            );
            checked += usize::from(known);
        }
    }
    assert!(checked > 30, "only {checked} names were found: has the page another form now?");
}
