//! The table of a comparison.

use super::lines::{METRICS, Metric, Want};
use super::sample::{Role, Sample};
use crate::bench::stats::median;

/// What all rounds say about one metric.
struct Row {
    metric: &'static Metric,
    reference: Option<f64>,
    candidate: Option<f64>,
    /// Candidate ÷ reference in the rounds that have both: least, median, most.
    ratio: Option<[f64; 3]>,
    notes: Vec<String>,
}

impl Row {
    fn new(metric: &'static Metric, samples: &[Sample]) -> Option<Row> {
        let of = |role| -> Vec<&Sample> {
            let wanted = |s: &&Sample| s.line == metric.line && s.key == metric.key && s.role == role;
            samples.iter().filter(wanted).collect()
        };
        let (references, candidates) = (of(Role::Reference), of(Role::Candidate));
        if references.is_empty() && candidates.is_empty() {
            return None;
        }
        let middle = |samples: &[&Sample]| median(&samples.iter().map(|s| s.value).collect::<Vec<_>>());
        let mut ratios = Vec::new();
        for candidate in &candidates {
            let same_round = |reference: &&&Sample| reference.round == candidate.round;
            if let Some(reference) = references.iter().find(same_round)
                && reference.value > 0.0
            {
                ratios.push(candidate.value / reference.value);
            }
        }
        let least = ratios.iter().copied().min_by(f64::total_cmp);
        let most = ratios.iter().copied().max_by(f64::total_cmp);
        let mut notes: Vec<String> = Vec::new();
        for sample in references.iter().chain(&candidates) {
            if let Some(note) = sample.detail.get("note").and_then(|note| note.as_str())
                && !notes.iter().any(|n| n == note)
            {
                notes.push(note.to_owned());
            }
        }
        Some(Row {
            metric,
            reference: middle(&references),
            candidate: middle(&candidates),
            ratio: least.zip(median(&ratios)).zip(most).map(|((least, middle), most)| [least, middle, most]),
            notes,
        })
    }

    fn cells(&self) -> [String; 8] {
        let Metric { line, title, unit, floor, goal, .. } = *self.metric;
        let value = |v: Option<f64>| v.map_or("–".into(), |v| unit.format(v));
        let ratio = match self.ratio {
            Some([least, middle, most]) => {
                format!("{} ({} – {})", times(middle), times(least), times(most))
            }
            None => "–".into(),
        };
        [
            line.to_owned(),
            title.to_owned(),
            value(self.reference),
            value(self.candidate),
            ratio,
            self.metric.format_want(floor),
            self.metric.format_want(goal),
            self.reached().to_owned(),
        ]
    }

    fn reached(&self) -> &'static str {
        let ratio = self.ratio.map(|[_, middle, _]| middle);
        let reached = |want: Want| self.metric.reached(want, self.candidate, ratio);
        match (reached(self.metric.floor), reached(self.metric.goal)) {
            (_, Some(true)) => "goal",
            (Some(true), _) => "floor",
            (Some(false), _) => "no",
            (None, Some(false)) => "no",
            (None, None) => "–",
        }
    }
}

fn times(ratio: f64) -> String {
    match ratio {
        r if r >= 10.0 => format!("{r:.1}"),
        r => format!("{r:.2}"),
    }
}

const HEADERS: [&str; 8] =
    ["line", "what", "reference", "candidate", "ratio (min – max)", "floor", "goal", "reached"];

/// The samples as a table: in Markdown, or with columns for a terminal.
pub fn render(samples: &[Sample], markdown: bool) -> String {
    let rows: Vec<Row> = METRICS.iter().filter_map(|metric| Row::new(metric, samples)).collect();
    let mut headers = HEADERS.map(str::to_owned);
    for (role, header) in Role::BOTH.into_iter().zip(2..) {
        if let Some(sample) = samples.iter().find(|sample| sample.role == role) {
            headers[header] = sample.server.clone();
        }
    }
    let mut lines = vec![headers];
    lines.extend(rows.iter().map(Row::cells));
    let mut text = if markdown { render_markdown(&lines) } else { render_columns(&lines) };
    for row in &rows {
        for note in &row.notes {
            text.push_str(&format!("\n{}, {}: {note}.", row.metric.line, row.metric.title));
            text.push_str(if markdown { "  " } else { "" });
        }
    }
    text.push('\n');
    text
}

fn render_markdown(lines: &[[String; 8]]) -> String {
    let mut text = String::new();
    for (number, cells) in lines.iter().enumerate() {
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
        if number == 0 {
            text.push_str("|---|---|--:|--:|--:|--:|--:|---|\n");
        }
    }
    text
}

fn render_columns(lines: &[[String; 8]]) -> String {
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    let mut text = String::new();
    for cells in lines {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let room = widths[column];
            match column {
                2..=6 => line.push_str(&format!("{cell:>room$}  ")),
                _ => line.push_str(&format!("{cell:<room$}  ")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(role: Role, round: usize, value: f64) -> Sample {
        let server = format!("{role:?}");
        let detail = serde_json::Value::Null;
        Sample { line: "G1".into(), key: "get".into(), server, role, round, value, detail }
    }

    #[test]
    fn a_row_has_medians_and_the_spread_of_the_ratios() {
        let samples = [
            sample(Role::Reference, 1, 50_000.0),
            sample(Role::Candidate, 1, 300_000.0),
            sample(Role::Reference, 2, 50_000.0),
            sample(Role::Candidate, 2, 400_000.0),
            sample(Role::Reference, 3, 40_000.0),
            sample(Role::Candidate, 3, 400_000.0),
        ];
        let table = render(&samples, true);
        let row = table.lines().nth(2).unwrap();
        assert_eq!(
            row,
            "| G1 | get, 50 × depth 8, per CPU second | 50.0 k/s | 400 k/s | 8.00 (6.00 – 10.0) | ≥ 6 × | \
             ≥ 12 × | floor |"
        );
        assert!(table.starts_with("| line | what | Reference | Candidate |"));
    }

    #[test]
    fn a_candidate_alone_is_judged_where_no_ratio_is_wanted() {
        let mut alone = sample(Role::Candidate, 1, 19.0);
        (alone.line, alone.key) = ("G4".into(), "p50".into());
        assert!(render(&[alone], false).lines().nth(1).unwrap().ends_with("goal"));
    }
}
