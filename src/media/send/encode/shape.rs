//! Frame size and frame rate of encoded video: as large and as frequent as look good at a bitrate.
//!
//! Pure: no clock, chance, socket or GStreamer.

/// Bits for each pixel below which video looks bad; with fewer, first the frame rate falls, then the frame size.
const BITS_PER_PIXEL: f64 = 0.03;

/// Factor on the needed bitrate to grow again, against oscillation.
const GROWTH: f64 = 1.3;

/// Divisors of size and frame rate. No side is ever shorter than a quarter of the source's.
const STEPS: [Shape; 5] = [
    Shape { size: 1, fps: 1 },
    Shape { size: 1, fps: 2 },
    Shape { size: 2, fps: 1 },
    Shape { size: 2, fps: 2 },
    Shape { size: 4, fps: 2 },
];

/// Divisors of the source's size and frame rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Divisor of each side.
    pub(super) size: u32,
    /// Divisor of the frame rate.
    pub(super) fps: u32,
}

impl Shape {
    /// Size and frame rate of the source.
    pub(super) const WHOLE: Self = STEPS[0];

    /// Returns the shape for a bitrate in bit/s, a source's size in pixels and its frames per second.
    pub(super) fn at(self, bitrate: u32, (width, height): (u32, u32), fps: u32) -> Self {
        let enough = |shape: &Self, per_pixel: f64| {
            let pixels = f64::from(width / shape.size) * f64::from(height / shape.size);
            f64::from(bitrate) >= pixels * f64::from(fps / shape.fps) * per_pixel
        };
        let first =
            |per_pixel| STEPS.iter().position(|shape| enough(shape, per_pixel)).unwrap_or(STEPS.len() - 1);
        let now = STEPS.iter().position(|shape| *shape == self).unwrap_or(0);
        let (needed, growth) = (first(BITS_PER_PIXEL), first(BITS_PER_PIXEL * GROWTH));
        STEPS[if needed > now { needed } else { growth.min(now) }]
    }

    /// Returns this size in this shape, with even sides.
    pub(super) fn of(self, (width, height): (u32, u32)) -> (u32, u32) {
        let even = |side: u32| (side / self.size / 2 * 2).max(16);
        if self.size == 1 { (width, height) } else { (even(width), even(height)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_bitrate_lowers_the_frame_rate_then_the_size() {
        let hd = (1280, 720);
        let at = |shape: Shape, rate| shape.at(rate, hd, 30);
        assert_eq!(at(Shape::WHOLE, 1_500_000), Shape::WHOLE);
        let half = at(Shape::WHOLE, 500_000);
        assert_eq!(half, Shape { size: 1, fps: 2 });
        assert_eq!(at(half, 900_000), half, "not at once back");
        assert_eq!(at(half, 1_100_000), Shape::WHOLE);
        let small = at(half, 250_000);
        assert_eq!((small, small.of(hd)), (Shape { size: 2, fps: 1 }, (640, 360)));
        let least = at(small, 0);
        assert_eq!((least, least.of(hd)), (Shape { size: 4, fps: 2 }, (320, 180)));
        assert_eq!(at(least, u32::MAX), Shape::WHOLE);
        assert_eq!(Shape { size: 4, fps: 2 }.of((17, 33)), (16, 16));
    }
}
