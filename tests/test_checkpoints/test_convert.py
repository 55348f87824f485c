import argparse
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from golden import Classifier, load, relative_error

from dynsp_mm import DynamicSwin
from dynsp_mm.checkpoints import convert_state_dict, find_source, load_pretrained, unwrap

TOOL = Path(__file__).parents[2] / 'tools' / 'convert_checkpoint.py'
RELEASES = {'dynamic_swin_eval': 'DynamicSwin release',
            'dynamic_convnext_eval': 'DynamicConvNeXt release'}
OFFICIAL = {'dynamic_swin_eval': 'official Swin', 'dynamic_convnext_eval': 'official ConvNeXt'}
NEW = ('score_predictor', 'fastmlp', 'fast_path')


def convert(*args):
    return subprocess.run([sys.executable, TOOL, *map(str, args)], capture_output=True, text=True)


@pytest.mark.parametrize('name', RELEASES)
def test_every_key_is_accounted_for(name):
    state_dict = load(name)['state_dict']
    result = convert_state_dict(state_dict)
    assert result.source.name == RELEASES[name]
    assert ({old for old, _ in result.mapped} | {old for old, _ in result.dropped}
            == set(state_dict))
    assert {new for _, new in result.mapped} == set(result.state_dict)
    assert all(reason for _, reason in result.dropped)
    for old, _ in result.dropped:
        assert old.endswith(('attn_mask', 'relative_position_index'))
    assert bool(result.dropped) == (name == 'dynamic_swin_eval')


@pytest.mark.parametrize('name', OFFICIAL)
def test_official_dense_checkpoints(name):
    state_dict = {k: v for k, v in load(name)['state_dict'].items()
                  if not any(part in k for part in NEW)}
    assert convert_state_dict(state_dict).source.name == OFFICIAL[name]


@pytest.mark.parametrize('name', RELEASES)
def test_tool_and_init_cfg(name, tmp_path):
    """A file in the release's own form, converted by the tool and named in a config."""
    golden = load(name)
    src, dst = tmp_path / 'release.pth', tmp_path / 'sub' / 'ours.pth'
    torch.save(dict(model={'module.' + k: v for k, v in golden['state_dict'].items()}, epoch=3,
                    args=argparse.Namespace(model='dynamic', batch_size=8)), src)
    done = convert(src, dst)
    assert done.returncode == 0, done.stderr
    assert RELEASES[name] in done.stdout
    assert done.stdout.count('mapped  ') + done.stdout.count('dropped ') \
        == len(golden['state_dict'])

    model = Classifier(golden)
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.load_state_dict(torch.load(dst, weights_only=True)['state_dict'], strict=True)
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())

    for path, prefix in ((dst, 'backbone.'), (dst, None), (src, None)):
        if path == src:  # mmengine's loader reads the namespace only in its unsafe way
            torch.save(dict(model=golden['state_dict']), src)
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


def test_tool_writes_whole_or_not_at_all(tmp_path):
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    state_dict = load('dynamic_convnext_eval_rect')['state_dict']
    torch.save(state_dict, src)
    assert convert(src, dst, '--dry-run').returncode == 0 and not dst.exists()
    dst.write_text('precious')
    done = convert(src, dst)
    assert done.returncode == 2 and f'DST {dst} exists; --force replaces it' in done.stderr
    assert dst.read_text() == 'precious'
    assert convert(src, dst, '--force').returncode == 0
    assert torch.load(dst, weights_only=True)['state_dict']

    torch.save({**state_dict, 'stages.0.0.surprise': torch.zeros(1)}, src)
    done = convert(src, tmp_path / 'other.pth')
    assert done.returncode == 2
    assert done.stderr.strip().endswith('unknown key(s): stages.0.0.surprise')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['dst.pth', 'src.pth']


class Hostile:

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path, )


def test_tool_refuses_what_is_no_checkpoint(tmp_path):
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    done = convert(src, dst)
    assert done.returncode == 2 and f'SRC {src} does not exist' in done.stderr

    torch.save(dict(model=dict(a=1)), src)
    assert 'holds no state dict' in convert(src, dst).stderr
    torch.save(dict(layer=torch.zeros(1)), src)
    assert 'unknown kind of checkpoint (keys such as layer)' in convert(src, dst).stderr

    torch.save(load('dynamic_convnext_eval_rect')['state_dict'], src)
    src.write_bytes(src.read_bytes()[:5000])
    assert 'damaged or no checkpoint' in convert(src, dst).stderr

    for content in (b'', b'not a checkpoint'):
        src.write_bytes(content)
        done = convert(src, dst)
        assert done.returncode == 2 and done.stderr.startswith(f'ERROR: SRC {src}')
    torch.save(dict(model={1: torch.zeros(1)}), src)
    assert 'holds no state dict' in convert(src, dst).stderr
    assert f'DST {tmp_path} is a directory' in convert(src, tmp_path, '--force').stderr

    ran = tmp_path / 'ran'
    src.write_bytes(pickle.dumps(Hostile(ran)))
    done = convert(src, dst)
    assert done.returncode == 2 and 'holds more than tensors' in done.stderr
    assert not ran.exists() and not dst.exists()


def test_unwrap():
    tensors = dict(a=torch.zeros(1))
    for wrapped in (tensors, dict(state_dict=tensors), dict(model=tensors, epoch=1),
                    dict(model_ema=tensors), {'module.a': tensors['a']}):
        assert list(unwrap(wrapped)) == ['a']
    for bad in (None, [], {}, dict(model={}), dict(epoch=3)):
        with pytest.raises(ValueError, match='no state dict'):
            unwrap(bad)
    assert find_source(tensors) is None


def small(**kwargs):
    return DynamicSwin(arch=dict(embed_dims=16, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4)),
                       **kwargs)


def test_loading_repairs_what_differs(tmp_path):
    """Other windows and position embeddings are interpolated, old names translated."""
    source = small(window_size=7, use_abs_pos_embed=True, img_size=64)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.normal_()
    weights = {'backbone.' + k: v for k, v in source.state_dict().items()}
    weights['backbone.norm.weight'] = weights.pop('backbone.norm3.weight') + 1
    weights['backbone.stages.0.blocks.0.attn.w_msa.relative_position_index'] = torch.zeros(49, 49)
    torch.save(dict(state_dict=weights), tmp_path / 'a.pth')
    model = small(window_size=5, use_abs_pos_embed=True, img_size=(96, 64), keep_ratios=0.7)
    load_pretrained(model, str(tmp_path / 'a.pth'))
    assert torch.equal(model.norm3.weight, weights['backbone.norm.weight'])
    name = 'stages.2.blocks.0.attn.w_msa.relative_position_bias_table'
    table = weights['backbone.' + name].T.reshape(1, 2, 13, 13)
    expected = F.interpolate(table, (9, 9), mode='bicubic').reshape(2, 81).T
    torch.testing.assert_close(model.get_parameter(name), expected)
    embedding = weights['backbone.absolute_pos_embed'].reshape(1, 16, 16, 16).permute(0, 3, 1, 2)
    expected = F.interpolate(embedding, (24, 16), mode='bicubic').flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.absolute_pos_embed, expected)


def test_errors_of_pretrained(tmp_path):
    path = str(tmp_path / 'a.pth')
    torch.save(small().state_dict(), path)
    wide = DynamicSwin(arch=dict(embed_dims=32, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4)))
    with pytest.raises(ValueError, match='has shape .* another arch'):
        load_pretrained(wide, path)
    with pytest.raises(ValueError, match=r"init_cfg.checkpoint='no.pth' cannot be loaded"):
        load_pretrained(small(), 'no.pth')
    with pytest.raises(ValueError, match='names of OpenMMLab already'):
        convert_state_dict({'backbone.norm3.weight': torch.zeros(1)})
    with pytest.raises(ValueError, match="no weights for DynamicSwin under the prefix 'neck.'"):
        load_pretrained(small(), path, 'neck')
