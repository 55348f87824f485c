"""tools/convert_checkpoint.py as a user runs it, on files in the releases' own form."""

import argparse
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from golden import Classifier, load, relative_error, release
from hostile import Hostile
from properties import needs_safe_globals
from safetensors.torch import load_file

from dynsp_mm import DynamicSwin, STViTSwin

ROOT = Path(__file__).parents[2]
NAMES = {
    'dynamic_swin_eval': 'DynamicSwin release',
    'dynamic_convnext_eval': 'DynamicConvNeXt release',
}


def convert(*args):
    return subprocess.run(
        [sys.executable, ROOT / 'tools/convert_checkpoint.py', *map(str, args)],
        capture_output=True,
        text=True,
    )


def error(*args):
    done = convert(*args)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith('ERROR: ')
    return done.stderr


@needs_safe_globals
@pytest.mark.parametrize('name', NAMES)
def test_sparse_releases(name, tmp_path):
    golden = load(name)
    src, dst = tmp_path / 'release.pth', tmp_path / 'sub' / 'ours.pth'
    torch.save(
        dict(
            model={'module.' + k: v for k, v in golden['state_dict'].items()},
            epoch=3,
            args=argparse.Namespace(model='dynamic', batch_size=8),
        ),
        src,
    )
    done = convert(src, dst)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('mapped  ') + done.stdout.count('dropped ') == len(
        golden['state_dict']
    )
    assert NAMES[name] in done.stdout and ', 0 missing' in done.stdout

    model = Classifier(golden)
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.load_state_dict(torch.load(dst, weights_only=True)['state_dict'], strict=True)
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())

    for path, prefix in ((dst, 'backbone.'), (dst, None), (src, None)):
        with torch.no_grad():
            for parameter in model.backbone.parameters():
                parameter.zero_()
        model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(path))
        if prefix:
            model.backbone.init_cfg['prefix'] = prefix
        model.backbone._is_init = False  # mmengine initialises once
        model.backbone.init_weights()
        with torch.no_grad():
            logits = model.eval()(golden['input'])
        assert relative_error(logits, golden['logits']) < 1e-5


def test_stvit_detector_release(tmp_path):
    """A whole detector: its head is kept, its backbone renamed; written as safetensors."""
    weights = {'backbone.' + k: v for k, v in release('stvit_dense').items()}
    weights['roi_head.bbox_head.0.fc_cls.weight'] = torch.ones(3, 2)
    src, dst = tmp_path / 'detector.pth', tmp_path / 'ours.safetensors'
    torch.save(dict(state_dict=weights, meta=dict(CLASSES=('a',), epoch=36)), src)
    done = convert(src, dst)
    assert done.returncode == 0, done.stderr
    assert (
        'mapped   backbone.layers.2.blocks.1.attn.kv.bias -> '
        'backbone.stages.2.blocks.1.attn.kv.bias\n' in done.stdout
    )
    assert 'mapped   roi_head.bbox_head.0.fc_cls.weight -> roi_head.' in done.stdout
    assert '0 dropped, 0 missing' in done.stdout
    got = load_file(dst)
    assert torch.equal(got.pop('roi_head.bbox_head.0.fc_cls.weight'), torch.ones(3, 2))
    config = load('stvit_dense')['config']
    STViTSwin(
        embed_dims=config['embed_dim'],
        depths=config['depths'],
        num_heads=config['num_heads'],
        out_indices=(0, 1, 2, 3),
    ).load_state_dict({k[len('backbone.') :]: v for k, v in got.items()}, strict=True)


def test_dense_file_of_openmmlab(tmp_path):
    src = tmp_path / 'dense.pth'
    model = DynamicSwin('tiny', out_indices=(0, 1, 2, 3))
    index = 'backbone.stages.0.blocks.0.attn.w_msa.relative_position_index'
    torch.save(
        dict(
            state_dict={
                **{'backbone.' + k: v for k, v in model.state_dict().items()},
                index: torch.zeros(49, 49),
            }
        ),
        src,
    )
    done = convert(src, tmp_path / 'a.pth')
    assert done.returncode == 0, done.stderr
    assert f'dropped  {index} (derived from the window size)\n' in done.stdout
    missing = [line.split()[1] for line in done.stdout.splitlines() if line.startswith('missing')]
    sparse = DynamicSwin('tiny', keep_ratios=0.7, out_indices=(0, 1, 2, 3)).state_dict()
    assert set(missing) == {'backbone.' + k for k in set(sparse) - set(model.state_dict())}
    assert f'1 dropped, {len(missing)} missing' in done.stdout

    # For the backbone of a config: the stem does not fit STViTSwin, the rest does.
    args = (src, tmp_path / 'b.pth', '--config', ROOT / 'configs/maskrcnn_stvit_swin_t.py')
    done = convert(*args, '--dry-run')
    assert done.returncode == 0, done.stderr
    assert (
        'dropped  backbone.patch_embed.projection.weight (STViTSwin has no such parameter)\n'
        in done.stdout
    )
    block = 'backbone.stages.2.blocks.1.attn'
    assert f'mapped   {block}.w_msa.qkv.bias -> {block}.q.bias, {block}.kv.bias\n' in done.stdout
    assert f'dropped  {block}.w_msa.relative_position_bias_table (' in done.stdout
    assert 'missing  backbone.patch_embed.layers.0.conv.weight (not in SRC' in done.stdout
    assert not (tmp_path / 'b.pth').exists()
    assert convert(*args).returncode == 0  # what is written is what the table says
    got = torch.load(tmp_path / 'b.pth', weights_only=True)['state_dict']
    assert {k[9:] for k in got} < set(STViTSwin('tiny', out_indices=(0, 1, 2, 3)).state_dict())
    (tmp_path / 'b.pth').unlink()
    text = error(src, tmp_path / 'b.pth', '--config', ROOT / 'configs/maskrcnn_dyswin_s.py')
    assert (
        'a checkpoint of Swin tiny, another arch than this DynamicSwin (Swin small): depths '
        '(2, 2, 6, 2) (here (2, 2, 18, 2))' in text
    )
    text = error(
        src, tmp_path / 'b.pth', '--config', 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    )
    assert 'its backbone is a ResNet, none of this package' in text


def test_writes_whole_or_not_at_all(tmp_path):
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    state_dict = release('dynamic_convnext_eval_rect')
    torch.save(state_dict, src)
    assert convert(src, dst, '--dry-run').returncode == 0 and not dst.exists()
    dst.write_text('precious')
    assert f'DST {dst} exists; --force replaces it' in error(src, dst)
    assert dst.read_text() == 'precious'
    assert convert(src, dst, '--force').returncode == 0
    assert torch.load(dst, weights_only=True)['state_dict']

    torch.save({**state_dict, 'stages.0.0.surprise': torch.zeros(1)}, src)
    assert (
        error(src, tmp_path / 'other.pth').strip().endswith('unknown key(s): stages.0.0.surprise')
    )
    # A block cut off, and a last stage: no key is unknown, and yet it is no whole network.
    torch.save({k: v for k, v in state_dict.items() if k != 'stages.2.1.pwconv2.bias'}, src)
    assert 'not there, such as stages.2.1.pointwise_conv2.bias' in error(src, tmp_path / 'o.pth')
    torch.save({k: v for k, v in state_dict.items() if not k.startswith('stages.3')}, src)
    assert 'is the checkpoint complete?' in error(src, tmp_path / 'other.pth')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['dst.pth', 'src.pth']


def test_refuses_what_is_no_checkpoint(tmp_path):
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    assert f'SRC {src} does not exist' in error(src, dst)
    torch.save(dict(model=dict(a=1)), src)
    assert 'holds no state dict' in error(src, dst)
    assert "has no entry 'ema'" in error(src, dst, '--entry', 'ema')
    torch.save(dict(layer=torch.zeros(1)), src)
    assert 'unknown kind of checkpoint (keys such as layer)' in error(src, dst)
    torch.save(release('dynamic_convnext_eval_rect'), src)
    src.write_bytes(src.read_bytes()[:5000])
    assert 'damaged or no checkpoint' in error(src, dst)
    assert 'must end in .pth, .pt or .safetensors' in error(src, tmp_path / 'dst.bin')
    assert f'DST {tmp_path} is a directory' in error(src, tmp_path, '--force')
    ran = tmp_path / 'ran'
    src.write_bytes(pickle.dumps(Hostile(str(ran))))
    assert 'was not read: it holds' in error(src, dst)
    assert not ran.exists() and not dst.exists()
