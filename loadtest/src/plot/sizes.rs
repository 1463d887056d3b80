//! Lines over a size that grows by factors, for the question whether something grows with it: on a logarithmic axis what grows
//! as its logarithm is a straight line, and what is proportional to it bends up.

use std::ops::Range;

use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    coord::combinators::{BindKeyPoints as _, IntoLogRange as _},
    style::WHITE,
};

use super::{Area, FONT, Plot, round, wrong};
use crate::report::number;

/// The least that is drawn: zero has no place on such an axis.
const LEAST: f64 = 1.0;
/// Left of the first point and right of the last (where the names of the lines stand), as a share of what lies between.
const LEFT: f64 = 0.04;
const RIGHT: f64 = 0.24;
/// Labels that are nearer to each other would cover each other, as a share of the same.
const APART: f64 = 0.07;
/// The least that lies between, in powers of ten: for a single point.
const NARROWEST: f64 = 0.3;

impl Plot {
    pub(super) fn draw_sizes(&self, area: &Area<'_>) -> Result<(), String> {
        area.fill(&WHITE).map_err(wrong)?;
        let (across, labels) = self.across();
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(76)
            .build_cartesian_2d(across.log_scale().with_key_points(labels), 0.0..self.most(1) * 1.05)
            .map_err(wrong)?;
        chart
            .configure_mesh()
            .x_desc(self.along)
            .y_desc(self.unit)
            .label_style(FONT)
            .x_label_formatter(&|size| number(*size))
            .y_label_formatter(&|y| round(*y))
            .light_line_style(WHITE)
            .draw()
            .map_err(wrong)?;
        self.draw_all(&mut chart, SeriesLabelPosition::UpperRight, |[size, y]| (size.max(LEAST), y))
    }

    /// What the axis spans, and what is labelled: sizes that were measured, no others.
    fn across(&self) -> (Range<f64>, Vec<f64>) {
        let points = self.lines.iter().flat_map(|line| &line.points);
        let mut sizes: Vec<f64> = points.map(|point| point[0].max(LEAST)).collect();
        sizes.sort_by(f64::total_cmp);
        let (first, last) = (sizes.first().copied().unwrap_or(LEAST), sizes.last().copied().unwrap_or(LEAST));
        let powers = (last / first).log10().max(NARROWEST);
        let mut labels: Vec<f64> = Vec::new();
        for size in sizes {
            if labels.last().is_none_or(|before| (size / before).log10() >= APART * powers) {
                labels.push(size);
            }
        }
        (first / 10_f64.powf(LEFT * powers)..last * 10_f64.powf(RIGHT * powers), labels)
    }
}
