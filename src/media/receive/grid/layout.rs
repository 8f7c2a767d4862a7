//! Positions of the videos of a room in one window.
//!
//! Pure: no clock, chance, socket or GStreamer.

/// Position and size of a video in the window, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Distance from the left edge.
    pub x: u32,
    /// Distance from the top edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// Returns positions for `count` videos, row by row in a grid that is as square as possible (1, 2, 4, 6, 9, …); an
/// incomplete last row is centred.
pub fn places(count: usize, width: u32, height: u32) -> Vec<Place> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    if count == 0 {
        return vec![];
    }
    let columns = (1..).find(|columns| columns * columns >= count).unwrap_or(count);
    let rows = count.div_ceil(columns);
    let (cell_width, cell_height) = (width / columns, height / rows);
    let place = |n: u32| {
        let row = n / columns;
        let in_row = if row + 1 == rows { count - row * columns } else { columns };
        let indent = (columns - in_row) * cell_width / 2;
        let x = indent + n % columns * cell_width;
        Place { x, y: row * cell_height, width: cell_width, height: cell_height }
    };
    (0..count).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_nearly_square() {
        let shape = |count| {
            let places = places(count, 1200, 600);
            (1200 / places[0].width, 600 / places[0].height)
        };
        let shapes: Vec<(u32, u32)> = [1, 2, 3, 4, 5, 6, 7, 9, 12].map(shape).to_vec();
        assert_eq!(shapes, [(1, 1), (2, 1), (2, 2), (2, 2), (3, 2), (3, 2), (3, 3), (3, 3), (4, 3)]);
        assert_eq!(places(3, 1200, 600)[2], Place { x: 300, y: 300, width: 600, height: 300 });
        assert!(places(0, 1200, 600).is_empty());
    }

    #[test]
    fn videos_do_not_overlap_and_stay_inside() {
        for count in 1..40 {
            let places = places(count, 1280, 720);
            assert_eq!(places.len(), count);
            for (i, a) in places.iter().enumerate() {
                assert!(a.x + a.width <= 1280 && a.y + a.height <= 720 && a.width > 0 && a.height > 0);
                for b in &places[i + 1..] {
                    let apart = a.x + a.width <= b.x
                        || b.x + b.width <= a.x
                        || a.y + a.height <= b.y
                        || b.y + b.height <= a.y;
                    assert!(apart, "{count}: {a:?} {b:?}");
                }
            }
        }
    }
}
