"""What a cycle and a bootstrap may be told, as values: every choice that the method leaves open is one option here.

`docs/reference/recipe.md` says of each what it does, why its default is what it is, and what was measured.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from diredi.codecs import codec_named
from diredi.config import Config
from diredi.distillation.recipe import Augment, TrainRecipe, Weight
from diredi.errors import InvalidInput
from diredi.knowledge.gap import DEFAULT_CODEC
from diredi.knowledge.merging import MergeRecipe, check_method

Section = Literal["backbone", "neck", "head"]
StudentKind = Literal["gap", "redistilled", "mean"]
ImageSource = Literal["presumed", "pool", "chosen", "styled", "pasted"]
SECTIONS: tuple[Section, ...] = ("backbone", "neck", "head")
Lam = float | dict[Section, float]
"""One for all sections, or one for each."""


class Recipe(Config):
    """A nested option that is left out keeps its default here, not that of a `TrainRecipe` of no particular use."""

    @model_validator(mode="before")
    @classmethod
    def _nested_defaults_stay(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        merged = dict(given)
        for name, value in given.items():
            field = cls.model_fields.get(name)
            default = field.get_default(call_default_factory=True) if field is not None else None
            if isinstance(value, dict) and isinstance(default, Config):
                merged[name] = _merged(default.model_dump(), value)
        return merged

    def override(self, overrides: dict[str, Any]) -> Self:
        """Return this recipe with `overrides` laid over it, in nested options too.

        Raises:
            InvalidInput: An option does not exist or cannot have that value; the message names it.
        """
        return self.of(_overlay(self.model_dump(mode="json"), overrides))


def _overlay(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    combined = dict(base)
    for name, value in overrides.items():
        inner = combined.get(name)
        combined[name] = _overlay(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return combined


def _merged(default: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`losses` are named weights, not options: naming some means these and no others."""
    return default | {
        name: _merged(default[name], value) if isinstance(value, dict) and name == "augment" else value
        for name, value in given.items()
    }


class CycleRecipe(Recipe):
    """One update cycle. `CycleRecipe()` is what measured best; how the paper does it is one option away each."""

    # What the site does.
    labels: Literal["site", "oracle"] = "site"
    """Who says what is on a site's images: the labels of its data set (`site`), or an oracle (`oracle`). That is a
    detector which looks at each image several times: one that the site has, else the tutor. Labels are then not read
    and need not be there, the site teaches no new class, and what it measures is an estimate."""
    oracle_looks: tuple[float, ...] = Field(default=(1.0, 1.5), min_length=1)
    """The sizes at which an oracle looks at an image, plain and mirrored each, as multiples of its own input."""
    oracle_confidence: float = Field(default=0.25, gt=0, lt=1)
    """The mean confidence over all looks from which the answer of an oracle is a label."""
    fill_in: bool = True
    """Whether an oracle of the site's own, if it has one, says what is on images of which its labels say nothing
    (`labels: site`): on images without a label file, if the site says that these are not labelled, and for known
    classes on all images of a site that has labelled none of these. Without, such images teach nothing of what is not
    labelled; in either case they do not teach that it is absent."""
    form: Literal["auto", "weights", "branch"] = "auto"
    """What learns the site: all weights of the detectors (`weights`), or a branch, a neck and a head of their own for
    the site's classes on a backbone that stays still (`branch`). `auto` lets the site find out, by a short probe, which
    of them its models bear: a detector that has learned much more than the coreset shows forgets it when all of its
    weights move."""
    branch: TrainRecipe = TrainRecipe(
        epochs=16,
        learning_rate=3e-4,
        batch_norm="frozen",
        train_only=("neck", "head"),
        losses={},
        precision="auto",
    )
    """How a branch learns, the tutor's and the student's alike, and for how long tutor and student learn a site at the
    most."""
    far_rate: float = Field(default=3.0, gt=0, le=100)
    """What the learning rate of `branch` is multiplied by where a site shows no class that the models know: it is far
    from all that they have learned, and the branch speaks for new classes alone."""
    fine_tuning: TrainRecipe | None = TrainRecipe(
        epochs=8, learning_rate=3e-5, batch_norm="frozen", losses={}, precision="auto"
    )
    """How all weights of the student follow a site, for half of the epochs of `branch` at the most, before its branch
    learns what is left of them: so little that the student keeps what it knows. Where a site shows no new class, the
    student gets no branch, and all of the epochs are these. None, a site that shows no known class, one without a
    coreset, or a student that has branches already, leave the weights as they are."""
    probe_steps: int = Field(default=24, ge=1)
    """Steps of the probe that chooses the form and tells how long the site's part will take."""
    held_back: float = Field(default=0.15, gt=0, lt=1)
    """The share of the site's training images and of the coreset that a branch does not learn from, of few images at
    least four or a third: what the site decides, it decides on them, never on the images that it is judged on."""
    router: bool = True
    """Whether a branch may find classes that the models know in its own place alone. A router tells images of that
    place, if a site's are so unlike the coreset that it is right about held-back images of both; then the branch learns
    these classes from the site's images alone, and all else is found as before. A cycle of several sites has none
    unless its recipe says so, for a device would compute the branch of each."""
    max_minutes: float | None = Field(default=None, gt=0)
    """The most that a site's trainings may take, in minutes, with the probe. Steps are left out where they would take
    longer, and again where the machine becomes slower while it trains; the learning rate comes down all the same."""
    max_cost: float = Field(default=2.0, gt=0)
    """The most that a branch may cost a site, as a multiple of fine-tuning the whole student with the coreset for as
    many epochs. The tutor's branch gets fewer epochs where it would cost more."""
    start: Literal["tutor", "fresh"] = "tutor"
    """Where tutor 1 and tutor 2 begin: the weights of the cloud's tutor, or fresh weights of the same architecture and
    seed."""
    reverse_distillations: Literal["one", "two"] = "one"
    """With `one`, the gap is tutor 2 minus the cloud's tutor. With `two`, it is tutor 2 minus tutor 1, as in the
    paper."""
    presumption: Literal["presumed", "student"] = "presumed"
    """What tutor 1 learns, where there is one: the labels of the coreset, or the student's own predictions on the
    site's images."""
    coreset_images: int = Field(default=200, ge=0)
    """How many presumed images the manufacturer ships, for the site to mix into the training of tutor 2 and of its
    student. 0 ships none."""
    presumed_shows_new: bool = False
    """Whether presumed images may show, without a label, what a site calls a new class. If so, they are not used as
    negative examples of it."""
    layers: tuple[Section, ...] = SECTIONS
    """The sections of the network whose change is in the gap. Rows of new classes always are."""
    batch_norm: Literal["gap", "keep", "re-estimate"] = "gap"
    """The tutor's batch-norm statistics: part of its gap, those of the old tutor, or estimated again in the cloud on
    presumed images. A student gap always has its own."""
    student_gap: bool = True
    """Whether the site also distils its own student from tutor 2 and uploads that difference."""
    codec: str = DEFAULT_CODEC
    """How a gap is encoded, by its name in `diredi.codecs`."""
    tutor: TrainRecipe = TrainRecipe(epochs=12, learning_rate=4e-3, teaches="unlabelled")
    """The reverse distillation at the site, the same for both tutors. The student teaches only where there is no label,
    because a label knows more."""
    student: TrainRecipe = TrainRecipe(epochs=12, learning_rate=4e-3, losses={"class_scores": 2.0, "boxes": 2.0})
    """The distillation from tutor 2 to the student, at the site."""

    # What the cloud does.
    receiver: Literal["tutor", "teacher"] = "tutor"
    """What the gap is added to. The teacher must have the tutor's architecture; it then also teaches the student."""
    merge: MergeRecipe = MergeRecipe()
    """How the gaps of several sites become one."""
    lam: Lam | None = None
    """Lambda, the share of the gap that known weights receive: one number from 0 to 2, or one for each section. None
    searches for it."""
    lam_search: Literal["harmless", "two-axes"] = "harmless"
    """Which of the `lam_candidates` that do no harm on presumed images to take: the largest (`harmless`), or the one
    with the best score at the site (`two-axes`)."""
    lam_sections: bool = False
    """Whether the head, then the neck, then the backbone may take a larger lambda than the one found for all."""
    lam_candidates: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    """The lambdas that a search tries, and that a site scores."""
    max_harm: float = Field(default=0.01, ge=0, le=1)
    """The most mAP50 (0 to 1) that an update may cost on presumed images."""
    max_false_alarms: float = Field(default=5.0, ge=0)
    """How often new classes may be found, at a confidence of 0.25, on 100 presumed images, which show none. A site
    lowers the scores of its new classes until half as often is to be expected by what is found on the coreset, held
    back or not. The cloud does so on its training images, and counts on others. Not asked for with
    `presumed_shows_new`."""
    redistil_images: dict[ImageSource, Weight] = Field(default={"presumed": 1.0}, min_length=1)
    """The images on which the updated tutor teaches the student: a name in `diredi.knowledge.image_sources`, or several
    with the share of each. An epoch has as many images as there are presumed ones."""
    redistil: TrainRecipe = TrainRecipe(epochs=4, learning_rate=1e-3)
    """The distillation from the updated tutor to the student, in the cloud."""
    redistil_branch: TrainRecipe = TrainRecipe(
        steps=400,
        learning_rate=1e-3,
        batch_norm="frozen",
        train_only=("neck", "head"),
        label_weight=0.0,
        losses={"hints": 1.0, "logits": 1.0, "class_scores": 1.0, "boxes": 1.0},
        augment=Augment(mosaic=0.3, scale=0.5),
        precision="auto",
    )
    """The same for a branch of the tutor. Its features and logits teach the student a class that no image of the cloud
    shows."""
    students: tuple[StudentKind, ...] = Field(default=("gap", "mean", "redistilled"), min_length=1)
    """The candidates for the release in order of preference. The first that does no harm on presumed images is taken.
    Without a student gap there is only `redistilled`."""
    seed: int = 0
    """The seed of every training in the cycle. The seeds inside the training recipes are not used."""

    @field_validator("codec")
    @classmethod
    def _codec_is_known(cls, name: str) -> str:
        try:
            return codec_named(name).name
        except InvalidInput as error:
            raise ValueError(str(error)) from None

    @field_validator("merge")
    @classmethod
    def _merge_is_known(cls, merge: MergeRecipe) -> MergeRecipe:
        try:
            check_method(merge)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return merge

    @field_validator("lam")
    @classmethod
    def _lam_is_usable(cls, lam: Lam | None) -> Lam | None:
        shares = lam if isinstance(lam, dict) else dict.fromkeys(SECTIONS, 0.0 if lam is None else lam)
        if set(shares) != set(SECTIONS) or any(not 0 <= share <= 2 for share in shares.values()):
            raise ValueError(f"name one number from 0 to 2, or one for each of {', '.join(SECTIONS)}")
        return lam

    @field_validator("redistil_images", mode="before")
    @classmethod
    def _one_source_is_a_mix_of_one(cls, mix: object) -> object:
        return {mix: 1.0} if isinstance(mix, str) else mix

    @field_validator("redistil_images")
    @classmethod
    def _a_mix_has_images(cls, mix: dict[ImageSource, float]) -> dict[ImageSource, float]:
        if not sum(mix.values()) > 0:
            raise ValueError("give at least one source of images a share above 0")
        return mix

    @field_validator("oracle_looks")
    @classmethod
    def _looks_are_usable(cls, looks: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0.25 <= look <= 4 for look in looks):
            raise ValueError("each look is from 0.25 to 4 times the size of the oracle's input")
        return tuple(sorted(set(looks)))

    @field_validator("lam_candidates")
    @classmethod
    def _candidates_are_usable(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or any(not 0 <= v <= 2 for v in values):
            raise ValueError("name at least one lambda, each from 0 to 2")
        return tuple(sorted(set(values), reverse=True))

    @model_validator(mode="after")
    def _options_go_together(self) -> CycleRecipe:
        for name, training in (("branch", self.branch), ("redistil_branch", self.redistil_branch)):
            if not training.train_only or "backbone" in training.train_only:
                raise ValueError(f"{name}.train_only: a branch has a neck and a head; the backbone is everybody's")
        if self.start == "fresh" and self.reverse_distillations == "one":
            raise ValueError("start=fresh needs reverse_distillations=two: there is no tutor to take the difference to")
        return self


class BootstrapRecipe(Recipe):
    """How the first models are made.

    A teacher learns the presumed data, a tutor is taught by it, and a student by the tutor. A model that is given as a
    file is not trained.
    """

    teacher: TrainRecipe = TrainRecipe(epochs=8)
    """How the first teacher learns the presumed data."""
    tutor: TrainRecipe = TrainRecipe(epochs=14)
    """How the first tutor learns from the teacher and the labels."""
    student: TrainRecipe = TrainRecipe(epochs=14, losses={"class_scores": 4.0, "boxes": 4.0})
    """How the first student learns from the tutor and the labels. A student that starts from nothing learns more from
    the tutor's answers than from labels."""
    coreset_images: int = Field(default=200, ge=0)
    """How many presumed images are drawn as the coreset for sites. 0 draws none."""
    seed: int = 0
    """The seed of the trainings of the first models, and of the draw of the coreset."""
