//! Plots of a report, as data, and drawn as SVG.

mod sizes;

use std::ops::Range;

use plotters::{
    chart::{ChartBuilder, ChartContext, SeriesLabelPosition},
    coord::{Shift, cartesian::Cartesian2d, ranged1d::Ranged, types::RangedCoordf64},
    drawing::{DrawingArea, IntoDrawingArea as _},
    element::{PathElement, Rectangle},
    prelude::SVGBackend,
    series::LineSeries,
    style::{Color as _, Palette as _, Palette99, ShapeStyle, WHITE},
};
use serde::Serialize;

/// Pixels.
const SIZE: (u32, u32) = (860, 320);
/// The letters of all plots.
const FONT: (&str, u32) = ("sans-serif", 13);
/// No latency is told apart from less.
const LEAST: f64 = 0.01;

/// A plot.
#[derive(Debug, Clone, Serialize)]
pub struct Plot {
    /// What it shows.
    pub title: &'static str,
    kind: Kind,
    /// What its horizontal axis is called; empty where there is none.
    along: &'static str,
    /// What the values are in.
    unit: &'static str,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, Serialize)]
struct Line {
    name: String,
    points: Vec<[f64; 2]>,
}

/// What its horizontal axis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Seconds.
    Time,
    /// `-log10(1 - quantile)`: as many nines.
    Nines,
    /// None: one bar for each line.
    Bars,
    /// A size, on a logarithmic axis.
    Size,
}

impl Plot {
    /// Lines over seconds.
    pub fn over_time(title: &'static str, unit: &'static str) -> Self {
        Self { title, kind: Kind::Time, along: "seconds", unit, lines: Vec::new() }
    }

    /// Lines over quantiles, as [`crate::stats::Latencies::percentiles`] gives them.
    pub fn percentiles(title: &'static str, unit: &'static str) -> Self {
        Self { title, kind: Kind::Nines, along: "percentile", unit, lines: Vec::new() }
    }

    /// Lines over a size that grows by factors; each point is marked. A size below one is drawn as one.
    pub fn over_size(title: &'static str, unit: &'static str, along: &'static str) -> Self {
        Self { title, kind: Kind::Size, along, unit, lines: Vec::new() }
    }

    /// A bar for each value.
    pub fn bars(title: &'static str, unit: &'static str, values: Vec<(String, f64)>) -> Self {
        let line = |(name, value)| Line { name, points: vec![[0.0, value]] };
        Self { title, kind: Kind::Bars, along: "", unit, lines: values.into_iter().map(line).collect() }
    }

    /// Adds a line.
    #[must_use]
    pub fn line(mut self, name: impl Into<String>, points: Vec<[f64; 2]>) -> Self {
        self.lines.push(Line { name: name.into(), points });
        self
    }

    /// Draws it.
    ///
    /// # Errors
    /// A value cannot be drawn (none is finite).
    pub fn svg(&self) -> anyhow::Result<String> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let drawn = match self.kind {
                Kind::Bars => self.draw_bars(&area),
                Kind::Time | Kind::Nines => self.draw_lines(&area),
                Kind::Size => self.draw_sizes(&area),
            };
            drawn
                .and_then(|()| area.present().map_err(wrong))
                .map_err(|error| anyhow::anyhow!("{}: {error}", self.title))?;
        }
        Ok(svg)
    }

    fn most(&self, of: usize) -> f64 {
        let values = self.lines.iter().flat_map(|line| &line.points).map(|point| point[of]);
        values.filter(|value| value.is_finite()).fold(0.0, f64::max).max(1e-9)
    }

    /// Latencies differ by orders of magnitude: powers of ten, from the one below the least to the one above the most.
    fn heights(&self) -> Range<f64> {
        if self.kind != Kind::Nines {
            return 0.0..self.most(1) * 1.05;
        }
        let values = self.lines.iter().flat_map(|line| &line.points).map(|point| point[1]);
        let least = values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min).max(LEAST).min(self.most(1));
        let bottom = least.log10().floor();
        bottom..self.most(1).log10().ceil().max(bottom + 1.0)
    }

    fn height(&self, value: f64) -> f64 {
        if self.kind == Kind::Nines { value.max(LEAST).log10() } else { value }
    }

    fn draw_lines(&self, area: &Area<'_>) -> Result<(), String> {
        area.fill(&WHITE).map_err(wrong)?;
        let heights = self.heights();
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(30)
            .x_label_area_size(36)
            .y_label_area_size(76)
            .build_cartesian_2d(0.0..self.most(0), heights.clone())
            .map_err(wrong)?;
        let nines = |x: &f64| format!("{} %", round(100.0 * (1.0 - 10_f64.powf(-x))));
        let seconds = |x: &f64| round(*x);
        let label: &dyn Fn(&f64) -> String = if self.kind == Kind::Nines { &nines } else { &seconds };
        chart
            .configure_mesh()
            .x_desc(self.along)
            .y_desc(self.unit)
            .label_style(FONT)
            .x_label_formatter(label)
            .x_labels(if self.kind == Kind::Nines { to_place(self.most(0)) + 1 } else { 10 })
            .y_labels(if self.kind == Kind::Nines { to_place(heights.end - heights.start) + 1 } else { 10 })
            .y_label_formatter(&|y| round(if self.kind == Kind::Nines { 10_f64.powf(*y) } else { *y }))
            .light_line_style(WHITE)
            .draw()
            .map_err(wrong)?;
        self.draw_all(&mut chart, SeriesLabelPosition::UpperLeft, |[x, y]| (x, self.height(y)))
    }

    /// Draws the lines where `place` puts their points, and says in a corner which is which.
    fn draw_all<'a, 'b: 'a, X: Ranged<ValueType = f64>>(
        &self,
        chart: &mut Chart<'a, 'b, X>,
        corner: SeriesLabelPosition,
        place: impl Fn([f64; 2]) -> (f64, f64),
    ) -> Result<(), String> {
        for (nth, line) in self.lines.iter().enumerate() {
            let style = colour(nth).stroke_width(2);
            let points = line.points.iter().map(|point| place(*point));
            // Filled is what marks the points.
            let series =
                LineSeries::new(points, style.filled()).point_size(if self.kind == Kind::Size { 3 } else { 0 });
            chart
                .draw_series(series)
                .map_err(wrong)?
                .label(line.name.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        chart
            .configure_series_labels()
            .position(corner)
            .background_style(WHITE.mix(0.8))
            .label_font(FONT)
            .draw()
            .map_err(wrong)
    }

    fn draw_bars(&self, area: &Area<'_>) -> Result<(), String> {
        area.fill(&WHITE).map_err(wrong)?;
        let count = u32::try_from(self.lines.len()).unwrap_or(1).max(1);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(190)
            .build_cartesian_2d(0.0..self.most(1) * 1.05, -0.5..f64::from(count) - 0.5)
            .map_err(wrong)?;
        let name = |y: &f64| {
            if y.fract() != 0.0 {
                return String::new();
            }
            let place = self.lines.len().checked_sub(1 + to_place(*y));
            place.and_then(|place| self.lines.get(place)).map(|line| line.name.clone()).unwrap_or_default()
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .x_desc(self.unit)
            .label_style(FONT)
            .y_labels(self.lines.len())
            .y_label_formatter(&name)
            .x_label_formatter(&|x| round(*x))
            .light_line_style(WHITE)
            .draw()
            .map_err(wrong)?;
        let bars = self.lines.iter().rev().zip(0_u32..).map(|(line, place)| {
            let value = line.points.first().map_or(0.0, |point| point[1]);
            let place = f64::from(place);
            Rectangle::new([(0.0, place - 0.3), (value, place + 0.3)], colour(0).filled())
        });
        chart.draw_series(bars).map_err(wrong).map(drop)
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b, X> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, RangedCoordf64>>;

fn wrong(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn colour(nth: usize) -> ShapeStyle {
    Palette99::pick(nth).to_rgba().stroke_width(1)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the number of a bar")]
fn to_place(y: f64) -> usize {
    y.max(0.0).round() as usize
}

/// Without digits that say nothing.
fn round(value: f64) -> String {
    let text = if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::Plot;

    #[test]
    fn sizes_grow_by_factors_and_each_is_named_and_marked() {
        let points = vec![[10.0, 50.0], [100.0, 55.0], [1_000.0, 60.0], [10_000.0, 80.0]];
        let svg = Plot::over_size("d", "us", "destinations").line("all services", points).svg().unwrap();
        for text in ["destinations", "all services", "\n10\n", "\n100\n", "\n1,000\n", "\n10,000\n"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        let across: Vec<f64> =
            svg.split("<circle cx=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect();
        assert_eq!(across.len(), 4, "{svg}");
        // As far from 10 to 100 as from 1,000 to 10,000.
        assert!(((across[1] - across[0]) - (across[3] - across[2])).abs() <= 1.0, "{across:?}");
        let one = Plot::over_size("e", "us", "dispatchers").line("all services", vec![[0.0, 1.0]]).svg().unwrap();
        assert!(one.contains("\n1\n"), "{one}");
    }

    #[test]
    fn labels_that_would_cover_each_other_are_left_out() {
        let points = vec![[100.0, 1.0], [101.0, 1.0], [10_000.0, 1.0]];
        let svg = Plot::over_size("f", "us", "stored").line("all", points).svg().unwrap();
        assert!(svg.contains("\n100\n") && !svg.contains("\n101\n") && svg.contains("\n10,000\n"), "{svg}");
    }

    #[test]
    fn plots_are_drawn() {
        let lines = Plot::over_time("a", "each second").line("events & more", vec![[0.0, 1.0], [1.0, 250.0]]);
        let svg = lines.svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("events &amp; more"), "{svg}");
        let bars = Plot::bars("b", "us", vec![("api".to_owned(), 12.0), ("postgres".to_owned(), 30.0)]).svg().unwrap();
        assert!(bars.contains("postgres") && bars.contains("api"), "{bars}");
        assert!(Plot::over_time("nothing", "").svg().is_ok());
        assert!(Plot::over_size("nothing", "", "").svg().is_ok());
        assert!(Plot::percentiles("c", "ms").line("x", vec![[0.0, 1.0], [3.0, 9.0]]).svg().unwrap().contains("99.9 %"));
    }
}
