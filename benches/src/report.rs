//! The Markdown tables.

use std::time::Duration;

use crate::measure::{Measured, Row, Sample};

/// Median, minimum and maximum.
pub(crate) struct Spread {
    pub(crate) median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    /// The throughput's ratio to that of the first row, round by round.
    pub(crate) fn of_ratios(row: &Row, first: &Row) -> Self {
        let mut ratios: Vec<_> = row
            .samples
            .iter()
            .zip(&first.samples)
            .map(|(sample, first)| sample.throughput / first.throughput)
            .collect();
        ratios.sort_by(f64::total_cmp);
        Self { median: ratios[ratios.len() / 2], least: ratios[0], greatest: ratios[ratios.len() - 1] }
    }
}

pub(crate) fn print(measured: &[Measured]) {
    let mut titles = Vec::new();
    for &Measured { title, .. } in measured {
        if !titles.contains(&title) {
            titles.push(title);
        }
    }
    for title in titles {
        let of_title: Vec<_> = measured.iter().filter(|measured| measured.title == title).collect();
        println!("\n## {title}\n");
        print_ratios(&of_title);
        of_title.into_iter().for_each(print_costs);
    }
}

fn print_ratios(measured: &[&Measured]) {
    let Some(Measured { rows: first, .. }) = measured.first() else { return };
    println!("Throughput as a ratio to {}: median (least to greatest) of the rounds.\n", first[0].name);
    println!("| | {} |", measured.iter().map(|each| each.setting.to_string()).collect::<Vec<_>>().join(" | "));
    println!("|---|{}", "---|".repeat(measured.len()));
    for (at, row) in first.iter().enumerate() {
        let ratios = measured.iter().map(|each| {
            let Spread { median, least, greatest } = Spread::of_ratios(&each.rows[at], &each.rows[0]);
            format!("{median:.2} ({least:.2} to {greatest:.2})")
        });
        println!("| {} | {} |", row.name, ratios.collect::<Vec<_>>().join(" | "));
    }
}

fn print_costs(measured: &Measured) {
    println!("\n{}: medians of the rounds, for each call.\n", measured.setting);
    println!("| | calls/s | p50 | p99 | client CPU | server CPU | allocations | bytes |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for row in &measured.rows {
        let times = |of: fn(&Sample) -> Duration| micros(median(row, |sample| of(sample).as_secs_f64()));
        let [p50, p99] = [times(|sample| sample.p50), times(|sample| sample.p99)];
        let [client, server] = [times(|sample| sample.client), times(|sample| sample.server)];
        let throughput = median(row, |sample| sample.throughput);
        let allocated = row
            .allocated
            .map_or_else(|| "| ".to_owned(), |allocated| format!("{:.1} | {:.0}", allocated.times, allocated.bytes));
        println!("| {} | {throughput:.0} | {p50} | {p99} | {client} | {server} | {allocated} |", row.name);
    }
}

fn median(row: &Row, of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<_> = row.samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn micros(seconds: f64) -> String {
    let micros = seconds * 1e6;
    if micros < 100.0 { format!("{micros:.2} µs") } else { format!("{micros:.0} µs") }
}
