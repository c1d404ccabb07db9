//! The picture: hits per second of each contender, as a multiple of the first.

use std::path::Path;

use svg::Document;
use svg::node::element::{Rectangle, Text};

use crate::Failure;
use crate::contenders::HITS;
use crate::measure::Measured;
use crate::report::Spread;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 220.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const HEADING: f64 = 40.0;
/// The space for the number after the longest bar.
const NUMBER: f64 = 60.0;

/// The smallest number of callers that is shown.
pub(crate) const MANY: usize = 64;

/// Draws the tables of hits with many callers, one below the other.
pub(crate) fn draw(measured: &[Measured], path: &Path) -> Result<(), Failure> {
    let hits = || measured.iter().filter(|each| each.title == HITS && each.setting.callers >= MANY);
    let height: f64 = hits().map(|each| HEADING + STEP * each.rows.len() as f64).sum();
    let spreads =
        |each: &Measured| each.rows.iter().map(|row| Spread::of_ratios(row, &each.rows[0])).collect::<Vec<_>>();
    let greatest = hits().flat_map(spreads).map(|spread| spread.median).fold(1.0, f64::max);
    let mut picture = Document::new()
        .set("viewBox", (0, 0, WIDTH as i32, (height + STEP) as i32))
        .set("font-family", "sans-serif")
        .set("font-size", 13)
        .add(Rectangle::new().set("width", "100%").set("height", "100%").set("fill", "#ffffff"));
    let mut y = 0.0;
    for each in hits() {
        let title = format!("{HITS}: {}, as a multiple of {}", each.setting, each.rows[0].name);
        picture = picture.add(text(title, 10.0, y + HEADING - 16.0).set("font-weight", "bold"));
        y += HEADING;
        for (row, spread) in each.rows.iter().zip(spreads(each)) {
            let length = (WIDTH - LEFT - NUMBER) * spread.median / greatest;
            let color = if row.name.starts_with("cache-aside") { "#c2410c" } else { "#94a3b8" };
            let bar = Rectangle::new().set("x", LEFT).set("y", y).set("width", length).set("height", BAR);
            picture = picture
                .add(text(row.name.to_owned(), LEFT - 8.0, y + BAR - 4.0).set("text-anchor", "end"))
                .add(bar.set("fill", color))
                .add(text(format!("{:.2}", spread.median), LEFT + length + 6.0, y + BAR - 4.0));
            y += STEP;
        }
    }
    Ok(svg::save(path, &picture)?)
}

fn text(text: String, x: f64, y: f64) -> Text {
    Text::new(text).set("x", x).set("y", y)
}
