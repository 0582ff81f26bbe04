//! An extended isolation forest: how easy it is to cut a point off from the others by random slanted planes.
//!
//! After Hariri, Carrasco Kind and Brunner, "Extended Isolation Forest" (2019). It is written here, on the simulator's
//! generator of numbers, because the crate for it draws from the thread's own random source and cannot be given a seed:
//! the same query would answer differently each time.

use broker::Random;

/// Trees of a forest.
const TREES: usize = 100;
/// Points that each tree is grown from.
const SAMPLE: usize = 256;
/// Where the numbers of every forest start.
const SEED: u64 = 0x6d69_6c6c_706f_6e64;
/// Euler's constant, from the mean depth of a search tree.
const EULER: f64 = 0.577_215_664_9;

/// Points with `width` numbers each, one after the other.
pub(super) struct Points<'a> {
    /// The numbers.
    pub(super) numbers: &'a [f64],
    /// Numbers per point; not 0.
    pub(super) width: usize,
}

impl Points<'_> {
    fn len(&self) -> usize {
        self.numbers.len() / self.width
    }

    fn at(&self, index: usize) -> &[f64] {
        &self.numbers[index * self.width..(index + 1) * self.width]
    }
}

/// A node of a tree; children are indexes into the tree.
enum Node {
    /// So many more steps are expected below.
    Leaf(f64),
    /// Points whose product with `normal` is at most `cut` go to the first child.
    Split { normal: Vec<f64>, cut: f64, children: [usize; 2] },
}

/// The score of each point: near 1 is easy to isolate, below 0.5 is ordinary. Points in another order have the same
/// scores.
pub(super) fn scores(points: &Points<'_>) -> Vec<f64> {
    let count = points.len();
    if count < 3 {
        return vec![0.5; count];
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| {
        let pairs = points.at(*a).iter().zip(points.at(*b));
        pairs.map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    });
    let mut random = Random::new(SEED);
    let size = SAMPLE.min(count);
    let mut depths = vec![0.0; count];
    for _ in 0..TREES {
        let mut sample = sample_of(&order, size, &mut random);
        let tree = Tree::grow(points, &mut sample, &mut random);
        for (index, depth) in depths.iter_mut().enumerate() {
            *depth += tree.depth(points.at(index));
        }
    }
    let usual = mean_depth(size);
    depths.into_iter().map(|depth| (-depth / TREES as f64 / usual).exp2()).collect()
}

/// Steps of an unsuccessful search in a tree of so many points.
fn mean_depth(points: usize) -> f64 {
    match points {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => {
            let rest = points as f64 - 1.0;
            2.0 * (rest.ln() + EULER) - 2.0 * rest / points as f64
        }
    }
}

struct Tree(Vec<Node>);

impl Tree {
    fn grow(points: &Points<'_>, sample: &mut [usize], random: &mut Random) -> Tree {
        let depth_max = (sample.len() as f64).log2().ceil() as usize;
        let mut tree = Tree(Vec::new());
        tree.node(points, sample, depth_max, random);
        tree
    }

    fn node(&mut self, points: &Points<'_>, sample: &mut [usize], depth_left: usize, random: &mut Random) -> usize {
        let place = self.0.len();
        self.0.push(Node::Leaf(mean_depth(sample.len())));
        let (low, high) = bounds(points, sample);
        if depth_left == 0 || sample.len() <= 1 || low == high {
            return place;
        }
        let normal: Vec<f64> = low.iter().map(|_| random.normal()).collect();
        let through = low.iter().zip(&high).map(|(low, high)| low + (high - low) * random.uniform());
        let cut = normal.iter().zip(through).map(|(normal, at)| normal * at).sum();
        let mut middle = 0;
        for at in 0..sample.len() {
            if product(&normal, points.at(sample[at])) <= cut {
                sample.swap(at, middle);
                middle += 1;
            }
        }
        let (left, right) = sample.split_at_mut(middle);
        let children =
            [self.node(points, left, depth_left - 1, random), self.node(points, right, depth_left - 1, random)];
        self.0[place] = Node::Split { normal, cut, children };
        place
    }

    fn depth(&self, point: &[f64]) -> f64 {
        let (mut place, mut steps) = (0, 0.0);
        loop {
            match &self.0[place] {
                Node::Leaf(below) => return steps + below,
                Node::Split { normal, cut, children } => {
                    place = children[usize::from(product(normal, point) > *cut)];
                    steps += 1.0;
                }
            }
        }
    }
}

fn product(normal: &[f64], point: &[f64]) -> f64 {
    normal.iter().zip(point).map(|(normal, at)| normal * at).sum()
}

/// The least and the largest of each number.
fn bounds(points: &Points<'_>, sample: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let (mut low, mut high) = (vec![f64::INFINITY; points.width], vec![f64::NEG_INFINITY; points.width]);
    for index in sample {
        for ((low, high), at) in low.iter_mut().zip(&mut high).zip(points.at(*index)) {
            *low = low.min(*at);
            *high = high.max(*at);
        }
    }
    (low, high)
}

/// `size` of the items, none twice (Floyd's way).
fn sample_of(items: &[usize], size: usize, random: &mut Random) -> Vec<usize> {
    let mut taken = std::collections::BTreeSet::new();
    for last in items.len() - size..items.len() {
        let drawn = (random.uniform() * (last + 1) as f64) as usize;
        if !taken.insert(drawn) {
            taken.insert(last);
        }
    }
    taken.into_iter().map(|place| items[place]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cloud of `count` points and one far away, which is the last.
    fn cloud(count: usize) -> Vec<f64> {
        let mut random = Random::new(7);
        let mut numbers: Vec<f64> = (0..count * 2).map(|_| random.normal()).collect();
        numbers.extend([8.0, -8.0]);
        numbers
    }

    #[test]
    fn the_point_far_away_has_the_highest_score() {
        for count in [20, 200, 2_000] {
            let numbers = cloud(count);
            let scores = scores(&Points { numbers: &numbers, width: 2 });
            let far = scores[count];
            assert!(far > 0.6, "{count}: {far}");
            assert!(scores[..count].iter().all(|score| (0.0..far).contains(score)), "{count}");
            let mean = scores.iter().sum::<f64>() / scores.len() as f64;
            assert!((0.3..0.55).contains(&mean), "{count}: {mean}");
        }
    }

    #[test]
    fn the_order_of_the_points_does_not_matter() {
        let numbers = cloud(300);
        let reversed: Vec<f64> = numbers.chunks(2).rev().flatten().copied().collect();
        let mut back = scores(&Points { numbers: &reversed, width: 2 });
        back.reverse();
        assert_eq!(scores(&Points { numbers: &numbers, width: 2 }), back);
    }

    #[test]
    fn points_that_are_all_the_same_are_ordinary() {
        let scores = scores(&Points { numbers: &[3.0; 100], width: 1 });
        assert!(scores.iter().all(|score| (*score - 0.5).abs() < 1e-9), "{scores:?}");
        assert_eq!(super::scores(&Points { numbers: &[1.0, 2.0], width: 1 }), [0.5, 0.5]);
    }
}
