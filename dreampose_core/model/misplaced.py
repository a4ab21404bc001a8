"""Find pixels of a photo that show something other than the map says: a hand on clothes, a skirt next to a bare arm,
hair over a sleeve.

Maps are a few pixels off, and know no hair below the head. Colours decide: skin is like the face, hair like the crown.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.ndimage import label

from ..poses import NUM_PARTS
from ..poses.sequence import HANDS

_HEAD = 23  # the first of the head's two parts
_FACE_U, _FACE_V, _CROWN_V = 0.3, (0.2, 0.6), 0.75  # on the head: largest U and range of V of the face; the crown's V
_LEAST = 40  # pixels whose colours describe skin or hair
_LIGHT = 0.1  # how much the logarithm of brightness counts in a colour, against the shares of red and green
_SPREAD = 0.008, 0.013, 0.04  # least and most that the shares of usual colours differ by, and what brightness does
_LIKE = 5  # a colour is alike within so many spreads
_FOREARMS, _ARMS, _REST = (*HANDS, 19, 20, 21, 22), tuple(range(15, 23)), (1, 2, *range(7, 15))
_SIDES = tuple(range(15, 23, 2)), tuple(range(16, 23, 2))  # parts of the left and the right arm
_ALONG = torch.tensor([0] * 3 + [2] * 2 + [0] * 14 + [1] * 4 + [0] * 2)  # upper arm, lower arm, hand, by part
_BARE, _CLOTHED = 0.15, 0.5  # rows of a part with a larger share of skin are bare, with a smaller one clothed
_SLEEVE = 0.25  # an arm with a smaller share of hair's colour shows that sleeves are not of that colour
_ROWS = 24  # rows of a part along V
_NEAR, _RIM = 0.03, 0.006  # shares of the person's height: how far off maps are, and how wide edges are mixed


def misplaced(photos: torch.Tensor, parts: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
    """Return which pixels not to take for their part, bool (B, H, W), in photos (B, 3, H, W) in [-1, 1].

    parts: (B, H, W) 0..24. uv: (B, 2, H, W). All False for a photo whose map shows no face.
    """
    return torch.stack([_misplaced(*one) for one in zip(photos.float(), parts, uv.float())])


def _misplaced(photo: torch.Tensor, parts: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
    colours = _colours(photo)
    skin, hair = _skin_and_hair(colours, parts, uv)
    forearms, arms, rest = (_on(parts, numbers) for numbers in (_FOREARMS, _ARMS, _REST))
    wrong = torch.zeros_like(arms)
    if not skin.any():
        return wrong
    tall = len(torch.unique(parts.nonzero()[:, 0]))
    near, rim = (max(1, round(share * tall)) for share in (_NEAR, _RIM))
    # Hair that hangs over an arm
    if min(_share(hair, _on(parts, side)) for side in _SIDES) < _SLEEVE:
        wrong = arms & _grown(_touching(hair, parts >= _HEAD), 2 * rim)
    # Clothes next to a bare arm, and hands on clothes
    row = (uv[1] * _ROWS).long().clamp(0, _ROWS - 1)
    wrong |= _bare_arms(parts, row, skin) & ~skin & _grown(rest, near)
    hands = rest & _touching(skin, forearms) & (_in_rows(parts, row, skin, rest) < _CLOTHED)
    wrong |= _grown(hands & _grown(_on(parts, HANDS), 3 * near), rim) & rest
    # The pocket that a hand is in
    for hand in (_on(parts, (number,)) for number in HANDS):
        if _share(skin, hand) < _BARE:
            cloth = _difference(colours, rest & _grown(hand, near)) < _LIKE
            wrong |= hand & (_share(cloth, hand) > _CLOTHED)
    return wrong


def on_face(parts: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
    """Return which pixels lie on the face, bool (..., H, W), by parts (..., H, W) and uv (..., 2, H, W)."""
    u, v = uv.unbind(-3)
    return (parts >= _HEAD) & (u < _FACE_U) & (v > _FACE_V[0]) & (v < _FACE_V[1])


def _colours(photo: torch.Tensor) -> torch.Tensor:
    """Shares of red and green, and brightness, of a photo (3, H, W)."""
    bands = (photo + 1) / 2 + 0.02
    light = bands.sum(0, keepdim=True)
    return torch.cat([bands[:2] / light, _LIGHT * light.log()])


def _skin_and_hair(colours: torch.Tensor, parts: torch.Tensor, uv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which pixels of the person look like the face, and which like the crown: bool (H, W)."""
    to_skin = _difference(colours, on_face(parts, uv))
    to_hair = _difference(colours, (parts >= _HEAD) & (uv[1] > _CROWN_V) & (to_skin > 3))
    person = parts > 0
    return person & (to_skin < _LIKE) & (to_skin <= to_hair), person & (to_hair < _LIKE) & (to_hair < to_skin)


def _difference(colours: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    """How far each pixel's colour (3, H, W) is from the usual one of `sample`, in that sample's spread: (H, W)."""
    if sample.sum() < _LEAST:
        return torch.full(sample.shape, torch.inf, device=colours.device)
    usual = colours[:, sample].median(1).values[:, None]
    spread = (colours[:, sample] - usual).abs().median(1).values.clamp(*_SPREAD[:2])
    spread[2] = _SPREAD[2]
    return ((colours - usual[..., None]) / spread[:, None, None]).square().sum(0).sqrt()


def _on(parts: torch.Tensor, numbers: tuple[int, ...]) -> torch.Tensor:
    return torch.isin(parts, torch.tensor(numbers, device=parts.device))


def _share(some: torch.Tensor, of: torch.Tensor) -> float:
    return float((some & of).sum() / of.sum().clamp_min(1))


def _bare_arms(parts: torch.Tensor, row: torch.Tensor, skin: torch.Tensor) -> torch.Tensor:
    """Which pixels lie on bare rows of arms and hands, bool (H, W): sleeves end once, so all below a bare row are."""
    bare, along = torch.zeros_like(skin), _ALONG.to(parts.device)[parts] * _ROWS + row
    for hand, arm in zip(reversed(HANDS), _SIDES):
        whole = _on(parts, (hand, *arm))
        all_of, skin_of = (torch.bincount(along[x], minlength=3 * _ROWS) for x in (whole, whole & skin))
        share = skin_of / all_of.clamp_min(1)
        ended = (share > _CLOTHED).cummax(0).values
        bare |= whole & ((share > _BARE) | ended)[along]
    return bare


def _in_rows(parts: torch.Tensor, row: torch.Tensor, some: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """The share of `some` in the pixels `of` of the same part and row as each pixel (H, W)."""
    number = parts * _ROWS + row
    all_of, some_of = (torch.bincount(number[x], minlength=(NUM_PARTS + 1) * _ROWS) for x in (of, of & some))
    return (some_of / all_of.clamp_min(1))[number]


def _touching(some: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
    """The connected areas of `some` that have a pixel in common with `seed`, bool (H, W)."""
    areas, count = label(some.cpu().numpy())
    area = torch.from_numpy(areas).to(some.device)
    touched = torch.zeros(count + 1, dtype=torch.bool, device=some.device)
    touched[area[some & seed]] = True
    return touched[area]


def _grown(area: torch.Tensor, radius: int) -> torch.Tensor:
    grown = area[None, None].float()
    for shape in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
        grown = F.max_pool2d(grown, shape, stride=1, padding=(shape[0] // 2, shape[1] // 2))
    return grown[0, 0] > 0
