"""Training without any exchange: on presumed data, on private data, and on all of it together."""

from __future__ import annotations

from environment import BenchSite, Environment

from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train
from diredi.knowledge.recipe import BootstrapRecipe


def direct(environment: Environment) -> Detector:
    """The student learns the presumed labels without a teacher, for as long as ours with one."""
    recipe = seeded(BootstrapRecipe.of(environment.plan.bootstrap).student, environment)
    spec = environment.student.spec
    student = registry.create(spec.architecture, spec.image_size, spec.labels, environment.seed)
    train(student, environment.presumed.train, recipe)
    return student


def fine_tune(environment: Environment, site: BenchSite, recipe: TrainRecipe, *, replay: bool = False) -> Detector:
    """The deployed student learns the site's labels at the site; with `replay`, the shipped presumed images too."""
    student = environment.student.expand_classes(site.labels)
    pools = [site_pool(site), Pool(environment.coreset)] if replay else [site_pool(site)]
    train(student, pools, seeded(recipe, environment))
    return student


def train_together(environment: Environment, site: BenchSite, tutor: TrainRecipe, student: TrainRecipe) -> Detector:
    """The upper bound, which privacy forbids: tutor and student go on learning, all images in one place."""
    pools = [Pool(environment.presumed.train), site_pool(site)]
    taught = environment.tutor.expand_classes(site.labels)
    train(taught, pools, seeded(tutor, environment))
    bound = environment.student.expand_classes(site.labels)
    train(bound, pools, seeded(student, environment), teacher=taught)
    return bound


def site_pool(site: BenchSite) -> Pool:
    """The site's images say nothing of classes that it has no name for."""
    known = frozenset(site.labels.ids_of(site.named)) if len(site.named) < len(site.labels) else None
    return Pool(site.data.train, known)


def seeded(recipe: TrainRecipe, environment: Environment) -> TrainRecipe:
    return recipe.model_copy(update={"seed": environment.seed})
