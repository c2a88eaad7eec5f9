//! Names beside the ends of curves, apart from each other.

/// Where blocks of these heights stand, each as near to its wish as the others permit: their
/// middles, none above `top` or below `bottom`, in the order of the wishes. Blocks that have no room
/// together begin at `top`.
pub(crate) fn apart(wishes: &[(f64, f64)], top: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wishes.len()).collect();
    order.sort_by(|&a, &b| wishes[a].0.total_cmp(&wishes[b].0));
    // Blocks that touch are a stack, which stands where the mean of its wishes is.
    let mut stacks: Vec<Stack> = Vec::new();
    for index in order {
        let (wish, height) = wishes[index];
        let mut stack = Stack {
            members: vec![index],
            height,
            begin: wish - height / 2.0,
        };
        stack.clamp(top, bottom);
        while let Some(above) = stacks.pop_if(|above| above.begin + above.height > stack.begin) {
            let (many, few) = (above.members.len() as f64, stack.members.len() as f64);
            // What the begin of the lower one wishes for the begin of both.
            let below = stack.begin - above.height;
            stack = Stack {
                begin: (above.begin * many + below * few) / (many + few),
                height: above.height + stack.height,
                members: [above.members, stack.members].concat(),
            };
            stack.clamp(top, bottom);
        }
        stacks.push(stack);
    }
    let mut middles = vec![0.0; wishes.len()];
    for stack in stacks {
        let mut begin = stack.begin;
        for index in stack.members {
            let height = wishes[index].1;
            middles[index] = begin + height / 2.0;
            begin += height;
        }
    }
    middles
}

struct Stack {
    members: Vec<usize>,
    height: f64,
    begin: f64,
}

impl Stack {
    fn clamp(&mut self, top: f64, bottom: f64) {
        self.begin = self.begin.min(bottom - self.height).max(top);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_has_room_stands_where_it_wishes() {
        assert_eq!(
            apart(&[(50.0, 10.0), (20.0, 10.0)], 0.0, 100.0),
            [50.0, 20.0]
        );
    }

    #[test]
    fn what_touches_moves_as_little_as_it_can() {
        assert_eq!(
            apart(&[(50.0, 10.0), (50.0, 10.0)], 0.0, 100.0),
            [45.0, 55.0]
        );
        assert_eq!(apart(&[(0.0, 10.0), (0.0, 10.0)], 0.0, 100.0), [5.0, 15.0]);
        assert_eq!(
            apart(&[(100.0, 10.0), (100.0, 10.0)], 0.0, 100.0),
            [85.0, 95.0]
        );
    }

    proptest! {
        #[test]
        fn nothing_overlaps_or_leaves_what_has_room(
            wishes in prop::collection::vec((-50.0f64..450.0, 5.0f64..30.0), 0..12),
        ) {
            let middles = apart(&wishes, 0.0, 400.0);
            let mut blocks: Vec<_> = wishes.iter().zip(&middles)
                .map(|(&(wish, height), middle)| (wish, middle - height / 2.0, middle + height / 2.0))
                .collect();
            blocks.sort_by(|a, b| a.1.total_cmp(&b.1));
            for block in &blocks {
                prop_assert!(block.1 > -1e-6 && block.2 < 400.0 + 1e-6, "{blocks:?}");
            }
            for pair in blocks.windows(2) {
                prop_assert!(pair[0].2 < pair[1].1 + 1e-6, "{blocks:?}");
                prop_assert!(pair[0].0 <= pair[1].0, "{blocks:?}");
            }
        }
    }
}
