# What type checkers and editors read: the names of __init__.py, with their types.
from voxnest.audio import read_audio as read_audio
from voxnest.corpora.prepare import prepare as prepare
from voxnest.errors import VoxnestError as VoxnestError
from voxnest.evaluation import compute_eer as compute_eer
from voxnest.evaluation import compute_min_dcf as compute_min_dcf
from voxnest.evaluation import evaluate as evaluate
from voxnest.evaluation.routing import load_router as load_router
from voxnest.hub.checkpoint import save_encoder as save_encoder
from voxnest.inference import embed_files
from voxnest.inference import verify as verify
from voxnest.losses import AAMSoftmax as AAMSoftmax
from voxnest.losses import SubCenterAAMSoftmax as SubCenterAAMSoftmax
from voxnest.losses import TripletLoss as TripletLoss
from voxnest.matryoshka import MatryoshkaLoss as MatryoshkaLoss
from voxnest.matryoshka import MatryoshkaProjection as MatryoshkaProjection
from voxnest.matryoshka import discriminative_rotation as discriminative_rotation
from voxnest.matryoshka import learned_rotation as learned_rotation
from voxnest.matryoshka import pca_rotation as pca_rotation
from voxnest.matryoshka import with_dims as with_dims
from voxnest.models.encoder import SpeakerEncoder as SpeakerEncoder
from voxnest.runtimes.loading import load_encoder as load_encoder
from voxnest.scoring import similarity as similarity
from voxnest.training.run import train as train
from voxnest.training.settings import load_config as load_config
from voxnest.zoo.registry import create_encoder as create_encoder
from voxnest.zoo.registry import list_models as list_models

embed = embed_files
__version__: str
