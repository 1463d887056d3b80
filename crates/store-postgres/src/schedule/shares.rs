//! How a budget is shared: everyone gets the same, but none more than it can use.

/// Shares of `budget`, in the order of `caps`: as even as the caps allow, and all of the budget as long as a cap has room.
/// Where there is not one for each, the first in line get one: what a share is worth must not decide whose turn it is.
pub(super) fn shares(budget: usize, caps: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..caps.len()).filter(|place| caps[*place] > 0).take(budget).collect();
    let members = order.len();
    order.sort_by_key(|place| caps[*place]);
    let mut given = vec![0; caps.len()];
    let mut left = budget;
    for (done, place) in order.into_iter().enumerate() {
        // The smallest caps come first, so that what they leave goes to the rest. Rounded up: whole deliveries go to
        // those who come first, and nothing of the budget is lost.
        let share = left.div_ceil(members - done);
        given[place] = share.min(caps[place]).min(left);
        left -= given[place];
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_takes_only_what_the_others_leave() {
        assert_eq!(shares(10, &[1_000_000, 2, 1]), [7, 2, 1]);
        assert_eq!(shares(9, &[100, 100, 100]), [3, 3, 3]);
        assert_eq!(shares(100, &[3, 4]), [3, 4]);
        assert_eq!(shares(2, &[0, 5, 5]), [0, 1, 1]);
        assert_eq!(shares(5, &[]), [0; 0]);
    }

    #[test]
    fn the_first_in_line_get_what_is_not_enough_for_all() {
        assert_eq!(shares(2, &[9, 0, 5, 1]), [1, 0, 1, 0]);
        assert_eq!(shares(3, &[2, 2, 2, 2]), [1, 1, 1, 0]);
        assert_eq!(shares(0, &[2, 2]), [0, 0]);
    }
}
