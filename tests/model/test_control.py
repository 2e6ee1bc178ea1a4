"""What learns to act, against what can be computed: value iteration, episodes of gymnasium itself, and the return at which CartPole counts as solved."""

import gymnasium
import numpy as np
import pytest

from mlops_nb.base.errors import MlopsError
from mlops_nb.model.control.dynamics import best_return, expected_return, greedy, value_iteration
from mlops_nb.model.control.episodes import play
from mlops_nb.model.control.policies import actor
from mlops_nb.model.control.tabular import TABULAR, learn_from_tables
from mlops_nb.sources.environments import environment
from mlops_nb.stages.learn_policy import Learner, learn, learn_all, place_of

BUDGET = {"gym:FrozenLake-v1": 100_000, "gym:Taxi-v4": 20_000}


def policy_values(world, policy, gamma):
    """The discounted value of each state, by solving the linear system v = r + gamma P v (S&B eq. 4.4)."""
    states = len(world.start)
    chain = np.zeros((states, states))
    weight = policy[:, :, None] * world.proba * ~world.ends
    np.add.at(chain, (np.arange(states)[:, None, None], world.reach), weight)
    return np.linalg.solve(np.eye(states) - gamma * chain, (policy * world.expected).sum(axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("address", BUDGET)
def test_q_learning_is_within_a_hundredth_of_value_iteration(address):
    """All of ten seeds, exactly: within the time limit, and discounted without one by the linear system."""
    place = place_of(address)
    world, limit = place.dynamics, place.made.limit
    best = greedy(value_iteration(world, 0.99))
    optimum, discounted = expected_return(world, best, limit), world.start @ policy_values(world, best, 0.99)
    assert optimum <= best_return(world, limit)
    for seed in range(10):
        *_, (_, q) = learn_from_tables("q_learning", world, limit, BUDGET[address], np.random.default_rng(seed), points=1)
        mine = greedy(q)
        assert abs(expected_return(world, mine, limit) - optimum) <= 0.01 * abs(optimum), seed
        assert abs(world.start @ policy_values(world, mine, 0.99) - discounted) <= 0.01 * abs(discounted), seed


@pytest.mark.slow
@pytest.mark.parametrize("address", BUDGET)
def test_episodes_of_gymnasium_itself_say_what_the_recursion_says(address):
    """The policy as it is served, stepped by gymnasium in 500 episodes of its own."""
    place = place_of(address)
    policy = learn(place, Learner("q_learning", BUDGET[address], 1), 0, 0).policy
    act, env, returns = actor(policy, place.made.columns, place.made.actions), gymnasium.make(place.made.name), []
    table = act(np.stack(np.unravel_index(np.arange(place.shape[0]), place.made.sizes), axis=1), None)
    for seed in range(500):
        state, over, total = env.reset(seed=seed)[0], False, 0.0
        while not over:
            state, reward, ended, cut, _ = env.step(int(table[state]))
            total, over = total + reward, ended or cut
        returns.append(total)
    exact = expected_return(place.dynamics, np.eye(place.shape[1])[table], place.made.limit)
    assert abs(np.mean(returns) - exact) < 4 * np.std(returns) / 500**0.5


@pytest.mark.slow
def test_the_others_learn_too():
    place = place_of("gym:FrozenLake-v1?is_slippery=false")
    for rule in TABULAR:
        assert [one.reached for one in learn_all(place, Learner(rule, 5_000, 2), 3, 0, 0)] == [1.0] * 3


@pytest.mark.deep
def test_reinforce_solves_cartpole():
    """The mean return of 100 fresh episodes is 475 or more in at least eight of ten seeds (all ten when this was written)."""
    place = place_of("gym:CartPole-v1")
    returns = []
    for seed in range(10):
        policy = learn(place, Learner("reinforce", 2_400), seed, 10).policy
        played = play(place.world, actor(policy, place.made.columns, place.made.actions), 100, np.random.default_rng(10_000 + seed))
        returns.append(played.returns.mean())
    assert sum(r >= 475 for r in returns) >= 8, returns


def test_equal_seeds_learn_equal_bits():
    from mlops_nb.base.artifacts import Model, digest_of

    place = place_of("gym:FrozenLake-v1")
    one, two, other = (learn(place, Learner("q_learning", 2_000, 2), root, 0) for root in (1, 1, 2))
    assert digest_of(Model.dump(one.policy)) == digest_of(Model.dump(two.policy)) and one.scores == two.scores
    assert one.scores != other.scores or digest_of(Model.dump(one.policy)) != digest_of(Model.dump(other.policy))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("gym:FrozenPond-v1", "has no environment 'FrozenPond-v1'"),
        ("gym:Taxi-v3", "there is Taxi-v4"),
        ("gym:os:system-v0", "no address makes their code be imported"),
        ("gym:Pendulum-v1", "learn in one that has them, such as gym:CartPole-v1"),
        ("gym:CliffWalking-v1", "give it one: gym:CliffWalking-v1?max_episode_steps=200"),
        ("gym:CartPole-v1?max_episode_steps=1000000000", "expected 1 to 100,000 steps"),
        ("gym:FrozenLake-v1?map_name=99x99", "option map_name=99x99: expected 4x4 or 8x8"),
        ("gym:FrozenLake-v1?success_rate=5", "option success_rate=5: expected a probability, from 0 to 1"),
        ("gym:FrozenLake-v1?success_rate=-1", "expected a probability"),
        ("gym:Taxi-v4?rainy_probability=3", "expected a probability"),
        ("gym:Acrobot-v2", "there is Acrobot-v1"),
        ("gym:FrozenLake-v1?render_mode=human", "no option 'render_mode'"),
        ("gym:CarRacing-v3?continuous=false", ""),
        ("gym:FrozenLake-v1?success_rate=inf", "expected a finite number"),
    ],
)
def test_what_is_no_environment_to_learn_in(address, said):
    with pytest.raises(MlopsError) as error:
        environment(address)
    assert said in str(error.value) and "\n" not in str(error.value)
