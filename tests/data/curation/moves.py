"""Films of known camera moves: a pinhole camera in a room of textured cards at several depths, all by exact projection.

The world's axes are the camera's at rest: x to the right, y downwards, z forwards, in metres.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from moviegen_core.prompts import PRETRAINING_CAMERA_MOTIONS as MOTIONS

FPS, SECONDS = 12.0, 3.0
WIDTH, HEIGHT = 192, 108
PIVOT = 6.0  # depth of what an arc turns about


@dataclass
class Camera:
    yaw: float = 0.0  # to the right
    pitch: float = 0.0  # upwards
    roll: float = 0.0
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    focal: float = 0.9  # in widths of the picture

    def matrix(self) -> np.ndarray:
        """From directions of the world to homogeneous pixels."""
        (sy, cy), (sp, cp), (sr, cr) = ((np.sin(angle), np.cos(angle)) for angle in (self.yaw, self.pitch, self.roll))
        turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        lift = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        lean = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        lens = np.array([[self.focal * WIDTH, 0, WIDTH / 2], [0, self.focal * WIDTH, HEIGHT / 2], [0, 0, 1]])
        return lens @ lean @ lift @ turn


@dataclass
class Card:
    texture: np.ndarray  # RGBA
    x: float  # of its middle
    y: float
    z: float
    width: float
    speed: tuple[float, float] = (0.0, 0.0)

    def draw(self, picture: np.ndarray, camera: Camera, time_s: float) -> np.ndarray:
        rows, columns = self.texture.shape[:2]
        pixel = self.width / columns
        left = self.x + self.speed[0] * time_s - self.width / 2
        top = self.y + self.speed[1] * time_s - pixel * rows / 2
        plane = np.array([[pixel, 0, left - camera.x], [0, pixel, top - camera.y], [0, 0, self.z - camera.z]])
        shown = cv2.warpPerspective(self.texture, camera.matrix() @ plane, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
        alpha = shown[..., 3:] / 255.0
        return picture * (1 - alpha) + shown[..., :3] * alpha


def texture(rng: np.random.Generator, *, rows=128, columns=128, whole=False) -> np.ndarray:
    color = rng.uniform(60, 200, 3) + sum(
        cv2.resize(rng.normal(0, 30, (size, size, 3)).astype(np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC)
        for size in (6, 16, 40)
    )
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    alpha = np.full((rows, columns), 255.0) if whole else 255.0 * (x**4 + y**4 < 0.9)
    return np.dstack([color.clip(0, 255), alpha]).astype(np.uint8)


def room(rng: np.random.Generator, motion: str) -> list[Card]:
    cards = [Card(texture(rng, rows=512, columns=512, whole=True), 0, 0, 14, 60)]
    for z in np.sort(rng.uniform(3.5, 10, 30))[::-1]:
        cards.append(Card(texture(rng), z * rng.uniform(-1, 1), z * rng.uniform(-0.6, 0.6), z, z * rng.uniform(0.15, 0.3)))
    if motion == "arc shot":
        cards.append(Card(texture(rng), 0, 0, PIVOT, 1.2))
        cards.sort(key=lambda card: -card.z)
    elif motion == "tracking shot":
        cards = [card for card in cards if card.z > 5.0]
        cards.append(Card(texture(rng), 0, 0, 4.0, 1.6))
    elif rng.random() < 0.5:  # somebody passes
        cards.append(Card(texture(rng), rng.uniform(-1, 1), rng.uniform(-0.5, 0.5), 3.4, 0.5, tuple(rng.uniform(-0.4, 0.4, 2))))
    return cards


def trembling(rng: np.random.Generator, amount: float) -> np.ndarray:
    """Angles over time whose frequencies lie between 1 and 4 Hz, of this root mean square."""
    times = np.arange(round(FPS * SECONDS)) / FPS
    waves = sum(rng.normal() * np.sin(2 * np.pi * rate * times + rng.uniform(0, 6.3)) for rate in rng.uniform(1, 4, 8))
    return amount * waves / max(float(np.sqrt((waves**2).mean())), 1e-9)


def film(motion: str, seed: int) -> np.ndarray:
    """Frames (f, h, w, 3) of a camera motion."""
    rng = np.random.default_rng([seed, MOTIONS.index(motion)])
    cards = room(rng, motion)
    speed, sign = rng.uniform(0.3, 1.0), 1 if motion.endswith(("right", "up", "in")) else -1
    tremble = rng.uniform(0.006, 0.012) if motion == "handheld shot" else rng.uniform(0, 0.0006)
    yaws, pitches = trembling(rng, tremble), trembling(rng, tremble)
    side = rng.choice([-1, 1])
    frames = []
    for number in range(round(FPS * SECONDS)):
        time_s = number / FPS
        camera, way = Camera(yaw=yaws[number], pitch=pitches[number]), sign * speed * time_s
        if motion.startswith("pan"):
            camera.yaw += 0.16 * way
        elif motion.startswith("tilt"):
            camera.pitch += 0.12 * way
        elif motion.startswith("truck"):
            camera.x = 0.8 * way
        elif motion.startswith("pedestal"):
            camera.y = -0.6 * way
        elif motion.startswith("zoom"):
            camera.focal *= np.exp(0.16 * way)
        elif motion in ("push in", "pull out"):
            camera.z = 0.8 * way + (0.0 if sign > 0 else 1.0)
        elif motion == "arc shot":
            angle = 0.16 * side * speed * time_s
            camera.x, camera.z = PIVOT * np.sin(angle), PIVOT - PIVOT * np.cos(angle)
            camera.yaw -= angle
        elif motion == "tracking shot":
            camera.x = 1.0 * side * speed * time_s
            cards[-1].speed = (1.0 * side * speed, 0.0)
        picture = np.zeros((HEIGHT, WIDTH, 3))
        for card in cards:
            picture = card.draw(picture, camera, time_s)
        frames.append((picture + rng.normal(0, 2.5, picture.shape)).clip(0, 255).astype(np.uint8))
    return np.stack(frames)
