"""Every fault of a command line is one line, known before any work, and leaves nothing behind."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf
from tiny import REPO, Outcome, launch_line, plain_environment, run_command, write_tree
from torchvision.models import densenet121

from cxrlit.commands import hydra_main
from cxrlit.commands.cli import main
from cxrlit.config import read_config
from cxrlit.model.weights.locate import IMAGENET_FILE


def test_prepare_says_what_is_there_also_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data=nih", f"data.root={write_tree(tmp_path / 'nih')}", f"cache_dir={tmp_path}", "sizes=[32,48]"]
    for decoded in (True, False):
        main(["prepare", *arguments])
        out = capsys.readouterr().out
        assert ("50 of 50 were decoded" in " ".join(out.split())) == decoded
        assert out.splitlines()[-1] == "nih is prepared: 50 images at 32, 48 px"


OPTUNA = "-m hydra/sweeper=optuna"
TRAIN = [
    # keys that are not there
    ("imgsize=320", "imgsize: there is no such key; did you mean img_size?"),
    ("+imgsize=320", "imgsize: there is no such key; did you mean img_size?"),
    ("++imgsize=320", "imgsize: there is no such key; did you mean img_size?"),
    ("model.weight=none", "model.weight: there is no such key; did you mean model.weights?"),
    ("weights=none", "weights: there is no such key; did you mean model.weights?"),
    ("data=nih data.rot=a", "data.rot: there is no such key; did you mean data.root?"),
    ("data=several data.synthetic.n_patients=9", "n_patients: there is no such key; the keys are: python train.py"),
    ("phases.finetune.foo=1", "phases.finetune.foo: there is no such key"),
    ("foo.bar.baz=1", "foo.bar.baz: there is no such key; the keys are: python train.py --cfg job"),
    ("img_size.foo=1", "img_size.foo: there is no such key"),
    ("data=nih data.n_patients=30", "data.n_patients: there is no such key"),
    ("scheduler.patience=3", "scheduler.patience: +scheduler.patience=VALUE sets it in the scheduler of each phase"),
    ("optimizer.lr=1", "optimizer.lr: there is no such key; did you mean lr?"),
    ("phases.finetun.lr=1e-4", "phases.finetun.lr: there is no such key; did you mean phases.finetune.lr?"),
    ("phase.finetune.lr=1e-4", "did you mean phases.finetune.lr?"),
    ("data=several data.x=1", "the keys are: python train.py --cfg job"),
    ("phases=frozen", "phases: there is no such key"),
    ("phases=frozen data/source=nih", "there is no such key"),
    ("labels.x=1", "labels.x=1: a place in a list is a number"),
    ("hydra.foo=1", "hydra.foo"),
    ("~nope", "nope"),
    ("~seed", "seed: the key is missing"),
    ("+phase=finetune", "+phase: the key is there already: drop the +"),
    (
        "phases.finetune.scheduler={_target_:torch.optim.lr_scheduler.CosineAnnealingLR,T_max:10}",
        "phases.finetune.scheduler: T_max is not among the keys that are there; drop those first: "
        "~phases.finetune.scheduler '+phases.finetune.scheduler={_target_:torch.optim.lr_scheduler.CosineAnnealingLR,",
    ),
    ("optimizer={x:{y:1}}", "optimizer: the key is there; what is new is x: +optimizer.x=VALUE adds it"),
    # choices that are not there
    ("phase=hires", "there is no phase hires; there are scratch, full, frozen, finetune, highres"),
    ("phase=[frozen]", "phase=['frozen']: input should be a valid string"),
    ("phase=null", "phase=None: input should be a valid string"),
    ("chain=[frozen,mine]", "+phases@phases.mine=mine takes it from a file of conf/phases/"),
    ("chain=[frozen,frozen]", "chain names each phase once"),
    ("chain=[frozen,highres]", "phase=finetune: chain has scratch, frozen, highres: set chain to have it"),
    ("chain=frozen", "chain is a list: chain=[frozen]"),
    ("data=radiographs", "data=radiographs: there is no such choice; it may be chexpert, internal, mimic, nih"),
    ("experiment=nope", "experiment=nope: there is no such choice; it may be action_plan, cxr_start, fast"),
    ("optimizer=adam", "optimizer=adam: there is no such choice; it may be adamw, sgd"),
    ("optimizer.decay_norms=maybe", "optimizer.decay_norms=maybe: it must be true or false"),
    ("optimizer.backbone_lr_factor=0", "optimizer.backbone_lr_factor=0: it must be a number above 0"),
    ("logger=null", "logger=null: it may be csv, mlflow, none, tensorboard, wandb"),
    ("logger=[csv,nope]", "logger=nope: there is no such choice; it may be csv, mlflow, none, tensorboard, wandb"),
    ("logger=[csv,csv]", "logger=[csv,csv]: name each choice once: logger=[csv, mlflow], or logger=none"),
    ("logger=[csv,none]", "logger=[csv,none]: none stands alone: logger=none"),
    ("logger=[]", "logger=[]: name each choice once: logger=[csv, mlflow], or logger=none"),
    ("optimizer=[adamw]", "optimizer=[adamw]: this group takes one choice"),
    ("callbacks=null", "callbacks=null: it may be default"),
    ("data=[nih,chexpert]", "this group takes one choice: data=several data.sources=[nih,chexpert]"),
    ("data=nih data.fold=7", "data.fold=7: the last of data.n_folds=5 is 4"),
    ("data=nih data.split=kfold", "data.split=kfold needs data.fold"),
    ("data=nih data.split=official data.fold=0", "data.split=kfold needs data.fold"),
    ("data=nih data.split=file", "data.split=file and data.split_file=PATH go together"),
    ("data=nih data.views=[]", "data.views names each view once"),
    ("data=nih data.views=[PA,PA]", "data.views names each view once"),
    ("data=nih data.store='http://me:secret@host/nih'", "data.store takes no password"),
    ("data=nih data.store='http://host/nih?token=secret'", "data.store takes no password"),
    ("data=nih data.store='simplecache::http://me:secret@host/nih'", "data.store takes no password"),
    ("labels=[Mass,mass]", "labels names each label once"),
    ("labels=[Mass,image]", "labels: image is the name of another column"),
    ("labels=[Mass,/b]", "labels.1=/b: the name of a label begins with a letter"),
    ("labels=[Mass,a|b]", "labels.1=a|b: the name of a label begins with a letter, and has letters, digits, spaces"),
    ("labels=Effusion", "labels is a list: labels=[Effusion]"),
    ("data=several data.sources=nih", "data.sources is a list: data.sources=[nih]"),
    ("sampler.labels=[Mass]", "go with sampler=oversample"),
    ("data.source=foo", "data.source=foo: it may be 'synthetic', 'nih', 'nih_google'"),
    ("data={source:foo}", "data.source=foo: it may be 'synthetic', 'nih', 'nih_google'"),
    ("scheduler@phases.finetune.scheduler=nope", "it may be by_phase, constant, cosine, one_cycle, reduce_on_plateau"),
    # types and ranges
    ("img_size=-1", "img_size=-1: input should be greater than or equal to 32"),
    ("img_size=224.0", "img_size=224.0: input should be a valid integer"),
    ("n_unfreeze=500", "n_unfreeze=500: input should be less than or equal to 427"),
    ("n_unfreeze=-1", "n_unfreeze=-1: input should be greater than or equal to 0"),
    ("lr=abc", "lr=abc: input should be a valid number"),
    ("lr=", "lr has no value: say lr=VALUE, or drop it"),
    ("lr=true", "lr=True: input should be a valid number"),
    ("lr=0", "lr=0: input should be greater than 0"),
    ("lr=nan", "lr=nan: input should be"),
    ("lr=inf", "lr=inf: input should be"),
    ("batch_size=0", "batch_size=0: input should be greater than or equal to 1"),
    ("max_epochs=0", "max_epochs=0: input should be greater than or equal to 1"),
    ("seed=-1", "seed=-1: input should be greater than or equal to 0"),
    ("seed=1.5", "seed=1.5: input should be a valid integer"),
    ("evaluate=1", "evaluate=1: input should be a valid boolean"),
    ("batch_norm=maybe", "batch_norm=maybe: input should be 'frozen', 'affine', 'adapt' or 'train'"),
    (
        "freeze_bn=true",
        "freeze_bn: there is no such key; it is called batch_norm (frozen | affine | adapt | train) now",
    ),
    ("trainer.precision=half", "trainer.precision=half: input should be 'auto', 'bf16', 'fp16' or 'fp32'"),
    ("trainer.num_workers=-1", "trainer.num_workers=-1: input should be greater than or equal to 0"),
    ("phases.highres.img_size=0", "phases.highres.img_size=0: input should be greater than or equal to 32"),
    ("data.val_fraction=1", "data.val_fraction=1: input should be less than 1"),
    (
        "augment.zoom=0.1",
        "augment.zoom: there is no such key; it is called augment.transforms.affine.scale=[0.9,1.1] now",
    ),
    ("+augment.flip=0.1", "augment.flip: there is no such key; it is called augment.transforms.flip.p now"),
    ("augment.transforms=null", "augment.transforms=None: input should be a valid dictionary"),
    ("augment.transforms.flip=0", "augment.transforms.flip=0: input should be a valid dictionary"),
    (
        "augment.transforms.afine.rotate=3",
        "augment.transforms.afine.rotate: there is no such key; did you mean augment.transforms.affine.rotate?",
    ),
    ("phases.finetune=null", "phases.finetune=None: input should be a valid dictionary"),
    ("run=..", "run=..: a run's name has letters, digits, . _ and -, no space, and no . or - in front"),
    ("run=.", "run=.: a run's name has"),
    ("run=a/b", "run=a/b: a run's name has"),
    ("run=", "run=: a run's name has"),
    ("runs_dir=", "runs_dir has no value: say runs_dir=VALUE, or drop it"),
    ("labels=", "labels has no value: say labels=[...], or drop it"),
    ("seed=", "seed has no value: say seed=VALUE, or drop it"),
    ("init_from=", "init_from has no value: say init_from=VALUE, or drop it"),
    ("labels=[]", "labels is empty: name at least one, labels=[...]"),
    ("runs_dir=???", "runs_dir has no value: say runs_dir=VALUE"),
    ("runs_dir=${nope}", "runs_dir: Interpolation key 'nope' not found"),
    ("runs_dir=${oc.env:NOT_SET_AT_ALL}", "runs_dir: KeyError raised while resolving"),
    # contradictions
    ("n_unfreeze=10 phase=frozen", "the frozen phase trains the head alone"),
    ("batch_norm=train phase=frozen", "the frozen phase trains the head alone"),
    ("n_unfreeze=10 phase=scratch", "the scratch phase trains everything"),
    ("batch_norm=frozen phase=scratch", "the scratch phase trains everything"),
    ("phase=scratch model.weights=imagenet", "phase=scratch starts from random weights"),
    ("phase=scratch data=nih", "phase=scratch starts from random weights"),
    ("init_from=a.ckpt model.weights=imagenet", "init_from and model.weights both say what to start from"),
    ("model.weights=null", "model.weights must be imagenet, none, a name or a file"),
    ("loss.pos_weight_cap=-3", "loss.pos_weight_cap=-3: it must be a number above 0, at most 1000, or null"),
    # no settings at all
    ("--foo", "--foo: there is no such option; settings are given as KEY=VALUE"),
    ("-x", "-x: there is no such option"),
    ("-phase=highres", "-phase=highres: settings have no dash: phase=highres"),
    ("-run=x", "-run=x: settings have no dash: run=x"),
    ("-img_size=320", "-img_size=320: settings have no dash: img_size=320"),
    ("-model.weights=none", "-model.weights=none: settings have no dash: model.weights=none"),
    ("-lr=1", "-lr=1: settings have no dash: lr=1"),
    ("--img_size=320", "--img_size=320: settings have no dash: img_size=320"),
    ("--resolve", "--resolve goes with --cfg"),
    ("-p trainer", "--package goes with --cfg"),
    ("hydra.mode=MULTIRUN", "hydra.mode: -m asks for a sweep: drop this"),
    ("--cfg foo", "argument --cfg/-c: invalid choice"),
    ("--cfg", "argument --cfg/-c: expected one argument"),
    ("--cfg job imgsize=3", "imgsize: there is no such key"),
    ("-m --cfg job", "--cfg shows one config: drop -m"),
    ("--config-name nope", "--config-name: there is no such option"),
    ("--config-dir nope", "--config-dir nope: there is no such folder"),
    ("--config-dir nope --help", "--config-dir nope: there is no such folder"),
    ("--config-dir=", "--config-dir : there is no such folder"),
    ("--config-dir", "argument --config-dir/-cd: expected one argument"),
    ("--config-path /tmp", "--config-path: there is no such option"),
    ("--experimental-rerun a.pickle", "--experimental-rerun: there is no such option"),
    ("lr", "lr: it cannot be understood; settings are given as KEY=VALUE"),
    ("=3", "=3: settings are given as KEY=VALUE"),
    ("lr=[1", "lr=[1: it cannot be understood"),
    ("lr={", "lr={: it cannot be understood"),
    ("lr='", "lr=': it cannot be understood"),
    ("init_from=epoch=3.ckpt", "init_from=epoch=3.ckpt: it cannot be understood"),
    # what is typed otherwise
    ("--run x", "--run: settings have no dash: run=x"),
    ("-run x", "-run: settings have no dash: run=x"),
    ("-phase highres", "-phase: settings have no dash: phase=highres"),
    ("--lr 3", "--lr 3: settings have no dash: lr=3"),
    ("phase highres", "phase highres: settings are given as KEY=VALUE: phase=highres"),
    ("phase:highres", "phase:highres: settings are given as KEY=VALUE: phase=highres"),
    ("data=nih data.root:/x", "data.root:/x: settings are given as KEY=VALUE: data.root=/x"),
    ("data.root = /x", "data.root: no space stands around =: data.root=/x"),
    ("lr =3", "lr: no space stands around =: lr=3"),
    ("data=nih data.root=/my dir", "dir: a space ends a setting: write data.root='\"/my dir\"'"),
    ("model.weights=my weights.pth", "write model.weights='\"my weights.pth\"'"),
    ("data.columns.findings=Finding Labels", "write data.columns.findings='\"Finding Labels\"'"),
    ("labels=[Mass, Nodule]", "labels=[Mass,: a space ends a setting: write 'labels=[Mass, Nodule]'"),
    ("labels=Mass,Nodule", "labels=Mass,Nodule: labels is a list: labels=[Mass,Nodule]"),
    ("labels=[Épanchement,Mass]", "a value with É needs quotes: labels='[\"Épanchement\",Mass]'"),
    ("labels=[1]", "labels.0=1: input should be a valid string: a text is written '\"1\"'"),
    ("chain=frozen,finetune", "chain is a list: chain=[frozen,finetune]"),
    ("phases=[frozen,finetune]", "this group takes one choice: chain=[frozen,finetune] names the phases"),
    ("data=nih,chexpert", "both together are data=several data.sources=[nih,chexpert]"),
    ("logger=csv,wandb", "logger is a list: logger=[csv,wandb]"),
    ("lr=0,001", "lr=0,001: several values are a sweep: python train.py -m ...; a number has a point: lr=0.001"),
    ("lr=1e−4", "lr=1e−4: − is another character than on the keyboard: lr=1e-4"),
    ("lr=“1e-4”", "lr=1e-4"),
    ("lr=1e-4,", "no , stands at its end: lr=1e-4"),
    ("lr==3", "lr==3: one = is enough: lr=3"),
    ("é=3", "é=3: é is in no key; settings are given as KEY=VALUE"),
    ("run=2026", "run=2026: input should be a valid string: a text is written run='\"2026\"'"),
    ("img_size=[320]", "img_size=[320]: input should be a valid integer: it is no list: img_size=320"),
    ("img_size='320'", "a number has no quotes: img_size=320"),
    ("evaluate=yes", "evaluate=yes: input should be a valid boolean: evaluate=true"),
    ("seed=None", "seed=None: nothing is written null: seed=null"),
    ("init_from=None", "init_from=None: nothing is written null: init_from=null"),
    ("n_unfreeze=all", "n_unfreeze=427 are all"),
    ("phase=Highres", "phase=Highres: the name of a phase has small letters, digits and _"),
    ("learning_rate=1", "learning_rate: there is no such key; it is called lr now"),
    ("data=nih root=/x", "root: there is no such key; did you mean data.root?"),
    ("data=nih data.path=/x", "data.path: there is no such key; it is called data.root now"),
    ("augment.crop=1", "augment.crop: there is no such key; augment=crop is a choice; augment has the keys transforms"),
    ("+callbacks.ema=true", "callbacks.ema=True: input should be a valid dictionary"),
    ("loss=torch.nn.BCEWithLogitsLoss", "loss._target_=torch.nn.BCEWithLogitsLoss takes a class"),
    ("data.root=/x", "data.root=/x: the chosen data set takes none: add data=nih, or which it is"),
    ("data=nih data.root=${HOME}/x", "an environment variable is ${oc.env:HOME}"),
    ("data=chexpert data.uncertain=ones", "data.uncertain=ones: input should be 'ignore', 'zero' or 'one'"),
    ("-m lr=intervall(1,2)", "intervall(...) is read as a function; there are choice, range, interval and glob"),
    # sweeps, whole before anything runs
    ("lr=1,2", "lr=1,2: several values are a sweep: python train.py -m ..."),
    ("experiment=glob(*)", "experiment=glob(*): several values are a sweep"),
    ("-m lr=1e-3,abc", "lr=abc: input should be a valid number"),
    ("-m phase=highres n_unfreeze=25,50,500 lr=1e-5", "n_unfreeze=500: input should be less than or equal to 427"),
    ("-m phase=frozen,hires", "there is no phase hires"),
    ("-m +foo=1,2", "foo: there is no such key"),
    ("-m lr=interval(1,2)", "lr=interval(1,2): these are no values to sweep over"),
    ("-m phase=glob(*)", "phase=glob(*): these are no values to sweep over"),
    ("-m lr=choice(1e-3,1e-4),1", "these are no values to sweep over"),
    ("-m loss=bce,weighted_bce loss.x=1", "loss.x: not each choice of loss has this key: ++loss.x=VALUE adds it"),
    ("-m hydra.job.name=a,b", "Sweeping over Hydra's configuration is not supported : 'hydra.job.name=a,b'"),
    ("-m hydra.sweep.dir=${nope} lr=1,2", "hydra.sweep.dir: Interpolation key 'nope' not found"),
    ("-m hydra.sweeper.max_batch_size=0 lr=1,2", "hydra.sweeper.max_batch_size=0: input should be greater than"),
    (
        "-m hydra.sweeper.batch_size=2 lr=1,2",
        "batch_size: there is no such key; did you mean ",
    ),
    (
        "-m +hydra.sweeper.foo=2 lr=1,2",
        "hydra.sweeper.foo: there is no such key",
    ),
    (
        "-m hydra.sweeper._target_=a.B lr=1,2",
        "Invalid plugin 'a.B': not the hydra_plugins package: ",
    ),
    ("-m hydra.launcher._target_=hydra_plugins.a.B lr=1,2", "Unknown plugin class : 'hydra_plugins.a.B'"),
    ("-m +hydra.launcher.foo=2 lr=1,2", "hydra.launcher: "),
    (
        "-m hydra.launcher=null lr=1,2",
        "Hydra launcher is not configured: hydra/sweeper and hydra/launcher name",
    ),
    ("-m hydra.sweeper=foo lr=1,2", "hydra/sweeper, hydra/launcher: Input config does not have a `_target_` field"),
    ("-m hydra.sweep.dir=null lr=1,2", "hydra.sweep.dir=null: "),
    ("-m hydra/sweeper=[grid,basic] lr=1,2", "hydra/sweeper=[grid,basic]: this group takes one choice"),
    (
        "-m monitor=val/loss lr=1e-3,1e-4",
        "monitor=val/loss: the jobs of a sweep are ranked by val/auroc_macro: drop it",
    ),
    ("-m hydra/sweeper=ax", "hydra/sweeper=ax: there is no such choice; it may be ablation, basic, grid, optuna"),
    ("hydra/sweeper=optuna", "hydra/sweeper=optuna: it goes with a sweep: python train.py -m hydra/sweeper=optuna ..."),
    ("hydra.sweep.dir=a", "hydra.sweep.dir=a: it goes with a sweep: python train.py -m hydra.sweep.dir=a ..."),
    ("hydra/launcher=ray", "hydra/launcher=ray: it goes with a sweep: python train.py -m hydra/launcher=ray ..."),
    ("-m sweep=optuna", "sweep=optuna: it is called hydra/sweeper=optuna now"),
    ("sweep=optuna", "sweep=optuna: it is called hydra/sweeper=optuna now"),
    ("-m sweep.n_trials=3", "sweep.n_trials=3: it is called hydra.sweeper.n_trials=3 now"),
    (
        "-m +sweep.space.batch_size.choices=[8,16]",
        "+sweep.space.batch_size.choices=[8,16]: it is called +hydra.sweeper.space.batch_size.choices=[8,16] now",
    ),
    ("-m hydra.sweeper.n_trials=3", "hydra.sweeper.n_trials: there is no such key"),
    ("OPTUNA hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0: input should be greater than or equal to 1"),
    (
        "OPTUNA hydra.sweeper.trials=3",
        "hydra.sweeper.trials: there is no such key; did you mean ",
    ),
    ("OPTUNA hydra.sweeper.pruner=best", "hydra.sweeper.pruner=best: input should be 'median' or 'none'"),
    ("OPTUNA lr=1e-4", "lr=1e-4: hydra.sweeper.space searches lr: drop it here, or set hydra.sweeper.space.lr=null"),
    ("OPTUNA seed=0,1", "hydra/sweeper=optuna searches a space: +hydra.sweeper.space.seed.choices=[0,1]"),
    ("OPTUNA phase=highres hydra.sweeper.space.lr.low=1", "low=1 must be below high=0.001"),
    ("OPTUNA hydra.sweeper.space.lr.low=0", "low=0 has no logarithm"),
    ("OPTUNA +hydra.sweeper.space.lr.step=2", "step goes with whole numbers"),
    ("OPTUNA hydra.sweeper.space.lr.low=abc", "hydra.sweeper.space.lr.low=abc: input should be a number"),
    (
        "OPTUNA hydra.sweeper.space.lr=3",
        "hydra.sweeper.space.lr=3: it must be {low: A, high: B} or {choices: [A, B]}",
    ),
    (
        "OPTUNA hydra.sweeper.space.n_unfreeze.high=500",
        "hydra.sweeper.space: n_unfreeze=500: input should be less than",
    ),
    ("OPTUNA phase=frozen", "hydra.sweeper.space: the frozen phase trains the head alone"),
    ("OPTUNA +hydra.sweeper.space.imgsize.choices=[32]", "hydra.sweeper.space: imgsize: there is no such key"),
    ("-m hydra/launcher=slurm lr=1,2", "hydra/launcher=slurm: there is no such choice; it may be basic"),
]

EVALUATE = [
    ("", "say what to evaluate: ckpt=PATH, weights=FILE or predictions=FILE"),
    (
        "ckpt=a predictions=b",
        "ckpt and predictions contradict: say what to evaluate: ckpt=PATH, weights=FILE or predictions=FILE",
    ),
    ("ckpt=[]", "say what to evaluate: ckpt=PATH, weights=FILE or predictions=FILE, one of them"),
    ("ckpt=[a,a]", "ckpt names a twice: name each checkpoint once"),
    ("ckpt=", "ckpt has no value: say ckpt=VALUE, or drop it"),
    ("ckpt=a ckpt=b", "ckpt is given twice: keep one; of several checkpoints together: ckpt=[a,b]"),
    ("ckpt=a out=", "out has no value: say out=VALUE, or drop it"),
    ("ckpt=a n_replicates=", "n_replicates has no value: say n_replicates=VALUE, or drop it"),
    ("ckpt=3", "ckpt is a list: ckpt=[3]"),
    ("ckpt=a targets=b", "targets goes with predictions=FILE"),
    ("ckpt=a patient=image", "patient goes with predictions=FILE"),
    ("ckpt=a scores=logits", "scores goes with predictions=FILE"),
    ("ckpt=a columns.image=b", "columns goes with predictions=FILE"),
    ("ckpt=a average=logits", "average goes with several checkpoints, or with tta=flip"),
    ("predictions=a tta=flip", "tta goes with ckpt=PATH"),
    ("predictions=a targets=b data=nih", "targets and data both say where the targets are"),
    ("predictions=a data.root=b", "data.root goes with a data set"),
    ("ckpt=a part=test", "part goes with other data"),
    ("ckpt=a recalibrate=true", "recalibrate goes with a checkpoint on other data"),
    ("ckpt=a data=nih baseline=b", "baseline: on other data the home test is what is compared with"),
    ("ckpt=a data=nihh", "data=nihh: there is no such choice; it may be "),
    ("ckpt=a data=nih data.foot=b", "data.foot: there is no such key; did you mean data.root?"),
    ("ckpt=a tta=mirror", "tta=mirror: input should be 'none', 'flip' or 'crops'"),
    (
        "ckpt=a threshold_rule=sensitivity",
        "threshold_rule=sensitivity needs min_rate=0.9: the sensitivity to reach on validation",
    ),
    ("ckpt=a threshold_rule=specificity", "needs min_rate=0.9: the specificity to reach on validation"),
    ("ckpt=a min_rate=0.9", "min_rate=0.9 goes with threshold_rule=sensitivity or specificity"),
    ("ckpt=a threshold_rule=sensitivity min_rate=1.1", "min_rate=1.1: input should be less than or equal to 1"),
    ("ckpt=a thresholds=b calibration=none", "calibration=none and thresholds=FILE, which holds both, contradict"),
    ("ckpt=a thresholds=b threshold_rule=youden", "threshold_rule=youden and thresholds=FILE, which holds both"),
    # keys that are called otherwise now
    ("ckpt=a wanted=0.9", "wanted: there is no such key; it is called min_rate now"),
    ("ckpt=a +wanted=0.9", "wanted: there is no such key; it is called min_rate now"),
    ("predictions=a labels=b", "labels of weights=FILE are a list, labels=[Mass]; a table of targets is targets=FILE"),
    ("predictions=a ++labels=b", "a table of targets is targets=FILE"),
    # no settings at all
    ("runs/default/finetune-1", "runs/default/finetune-1: write ckpt=runs/default/finetune-1"),
    ("a.ckpt b.ckpt", "a.ckpt: write ckpt=[a.ckpt,b.ckpt]"),
    ("--ckpt a", "--ckpt a: settings have no dash: ckpt=a"),
    ("-ckpt=a", "-ckpt=a: settings have no dash: ckpt=a"),
    ("ckpt = a", "ckpt: no space stands around =: ckpt=a"),
    ("ckpt", "ckpt: settings are given as KEY=VALUE"),
    ("ckpt=/my dir", "dir: a space ends a setting: write ckpt='\"/my dir\"'"),
    ("ckpt=a age_bands=40,60", "age_bands is a list: age_bands=[40,60]"),
    ("ckpt=a threshold_rule=youden,f1_grid", "threshold_rule=youden,f1_grid: it takes one value"),
    ("ckpt=a n_replicates=1e3", "n_replicates=1000.0: input should be a valid integer: n_replicates=1000"),
    ("ckpt=a device=cuda", "device: there is no such key; it is called trainer.accelerator now"),
    ("predicted.csv n_replicates=100", "predicted.csv: write predictions=predicted.csv"),
    ("ckpt=a age_bands=[60,40]", "age_bands rises from band to band"),
    ("ckpt=a subgroups=[sex,sex]", "subgroups names each attribute once"),
    ("ckpt=a n_replicates=10", "n_replicates=10: input should be greater than or equal to 100"),
    ("ckpt=a localise=cam", "localise=cam: input should be 'none', 'gradcam' or 'gradcam++'"),
    ("ckpt=a lr=3", "lr: there is no such key"),
    ("ckpt=a trainer=ddp", "trainer: there is no such key"),
    ("ckpt=a +x=1", "x: there is no such key; the keys are: python evaluate.py --cfg job"),
    ("ckpt=a zzz=1", "zzz: there is no such key; the keys are: python evaluate.py --cfg job"),
    ("ckpt=a,b", "ckpt=a,b: ckpt is a list: ckpt=[a,b]"),
    ("-m ckpt=a,b", "-m: only train.py sweeps"),
    ("ckpt=a trainer.num_workers=x", "trainer.num_workers=x: input should be a valid integer"),
]


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [("train", *case) for case in TRAIN] + [("evaluate", *case) for case in EVALUATE],
    ids=lambda value: str(value)[:40],
)
def test_a_fault_is_one_line_that_names_it(
    name: str, line: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checked, outcome = launch_line(line.replace("OPTUNA", OPTUNA).split(), name)
    assert_one_line(outcome, expected)
    assert not checked
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", ["ckpt=a seed=1,2", "ckpt=/x,y", "ckpt=a data=nih data.root=/x,y"])
def test_a_comma_never_advises_a_sweep_to_a_command_that_has_none(line: str) -> None:
    outcome = launch_line(line.split(), "evaluate")[1]
    assert_one_line(outcome)
    assert "-m" not in outcome.err


def test_a_name_with_a_space_is_told_what_it_may_be() -> None:
    assert_one_line(launch_line(["run=my run"])[1], "run=my run: a run's name has letters, digits, . _ and -, no space")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "phase=highres img_size=320 phases.finetune.n_unfreeze=200",
        "lr=1",
        "phases.finetune.n_unfreeze_schedule={1:10,2:100}",
        "experiment=smoke",
        "data=nih data.root=/somewhere",
        "-m phase=highres n_unfreeze=25,50 lr=1e-5,5e-6",
        "-m seed=range(3)",
        "-m experiment=glob(*)",
        "-m hydra.sweeper.max_batch_size=1 hydra.sweeper.params={lr:'1e-4,1e-5'} hydra.sweep.subdir=${hydra.job.num}",
        "-m data=nih,chexpert ++data.root=/somewhere",
        "OPTUNA phase=highres",
        "OPTUNA loss=bce hydra.sweeper.space.loss=null",
        "OPTUNA ~hydra.sweeper.space.loss loss=bce",
        "OPTUNA +hydra.sweeper.space.batch_size.choices=[8,16] hydra.sweeper.space.lr=null lr=1e-3",
        "logger=none",
        "logger=[csv,wandb] logger.wandb.project=mine",
        "-m logger=[csv,tensorboard] lr=1,2",
        "callbacks.early_stopping=null",
        "scheduler@phases.finetune.scheduler=constant",
        "scheduler=cosine scheduler.warmup=0.1",
        "loss=bce loss.pos_weight_cap=3",
        "callbacks=ema",
        "chain=[full,highres] phase=full",
        "n_unfreeze=100 n_unfreeze_schedule={1:10,2:100}",
        "+phases@phases.again=finetune chain=[frozen,finetune,again] phase=again",
        "phases.finetune.scheduler=null",
    ],
)
def test_what_is_allowed_passes(line: str) -> None:
    checked, outcome = launch_line(line.replace("OPTUNA", OPTUNA).split())
    assert outcome == Outcome(0, "", "")
    assert len(checked) == 1


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_a_config_is_composed_and_checked_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"compose": 0, "check": 0}

    def count(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            counts[what] += 1
            return function(*arguments, **options)

        return counted

    loader = ConfigLoaderImpl
    monkeypatch.setattr(loader, "load_configuration", count("compose", loader.load_configuration))
    monkeypatch.setattr(hydra_main, "read_config", count("check", read_config))
    [checked], _ = launch_line(["seed=7", *(["ckpt=a"] if name == "evaluate" else [])], name)
    assert checked.seed == 7
    assert counts == {"compose": 1, "check": 1}


def test_what_hydra_says_of_a_run_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["hydra.run.dir=there", "hydra.job.chdir=true", "hydra.output_subdir=said", "+hydra.job.env_set.SAID=1"]
    [checked], outcome = launch_line(["lr=3e-5", *settings, "data=nih", "data.root=${oc.env:SAID}"])
    assert outcome == Outcome(0, "", "")
    assert checked.data.root == str(tmp_path / "there" / "1")
    assert checked.runs_dir == str(tmp_path / "there" / "runs")
    said = OmegaConf.load(tmp_path / "there" / "said" / "hydra.yaml").hydra
    assert (said.job.name, said.mode, said.runtime.cwd) == ("train", "RUN", str(tmp_path))
    assert said.overrides.task == ["lr=3e-5", "data=nih", "data.root=${oc.env:SAID}"]
    assert OmegaConf.load(tmp_path / "there" / "said" / "config.yaml").lr == 3e-5
    assert Path.cwd() == tmp_path


def assert_one_line(outcome: Outcome, *parts: str) -> None:
    assert outcome.code != 0
    assert outcome.err.startswith("error: "), outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    assert "Traceback" not in outcome.out + outcome.err
    for part in parts:
        assert part in outcome.err


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, without a network."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["imgsize=320"], "did you mean img_size?"),
        (["-m", "phase=highres", "n_unfreeze=25,500"], "n_unfreeze=500"),
        (["--cfg", "foo"], "invalid choice"),
        (["data=nih", "data.root=nope"], "nope: there is no such folder"),
        (["data=nih"], "data=nih needs data.root=PATH"),
        (["init_from=nope.ckpt"], "nope.ckpt: there is no such checkpoint"),
        (["init_from=."], "there is no best.ckpt in it"),
        (["model.weights=nope.pth", "phase=frozen"], "nope.pth: there is no such file"),
        (["trainer.accelerator=cuda"], "trainer.accelerator=cuda: this machine has none"),
    ],
)
def test_a_command_with_a_fault_writes_nothing(in_folder: Path, arguments: list[str], part: str) -> None:
    if "trainer.accelerator=cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert_one_line(run_command("train.py", *arguments), part)
    assert not list(in_folder.iterdir())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "nih")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "densenet.pth"
    torch.save(densenet121(weights=None).state_dict(), path)
    return path


def train_on(tree: Path, *arguments: str) -> Outcome:
    small = ("phase=frozen", "img_size=32", "batch_size=8", "max_epochs=1", "trainer.num_workers=0")
    return run_command("train.py", "data=nih", f"data.root={tree}", *small, *arguments)


def remove_images(tree: Path) -> None:
    for path in (tree / "images").iterdir():
        path.unlink()


def remove_table(tree: Path) -> None:
    (tree / "Data_Entry_2017_v2020.csv").unlink()


def damage_table(tree: Path) -> None:
    (tree / "Data_Entry_2017_v2020.csv").write_bytes(bytes(range(256)))


def remove_half(tree: Path) -> None:
    for path in sorted((tree / "images").iterdir())[::2]:
        path.unlink()


def leak(tree: Path) -> None:
    images = sorted(path.name for path in (tree / "images").iterdir())
    table = tree / "Data_Entry_2017_v2020.csv"
    table.write_text(table.read_text().replace(",0\n", ",1\n"))
    (tree / "train_val_list.txt").write_text("\n".join(images[:1] + images[2:]))
    (tree / "test_list.txt").write_text(images[1])


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (remove_images, "none of the table's 50 images, such as 0000.png, is in"),
        (remove_table, "there is no label table"),
        (damage_table, "Data_Entry_2017_v2020.csv"),
        (remove_half, "25 of 50 images cannot be used (25 not on disk"),
        (leak, "1 patient stands in two parts of the split (1)"),
    ],
)
def test_data_that_cannot_be_used(
    in_folder: Path, tree: Path, weights: Path, damage: Callable[[Path], None], part: str
) -> None:
    damage(tree)
    assert_one_line(train_on(tree, f"model.weights={weights}"), part)
    assert not (in_folder / "runs").exists()


def test_imagenet_without_network(in_folder: Path, tree: Path) -> None:
    outcome = train_on(tree)
    assert_one_line(outcome, IMAGENET_FILE, str(in_folder.parent / "torch" / "hub" / "checkpoints"))
    assert not (in_folder / "runs").exists()


class Payload:
    """Pickled, it makes a file when it is loaded by what runs pickles."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("key", ["model.weights", "init_from", "ckpt"])
@pytest.mark.parametrize("content", ["payload", "text", "tensors"])
def test_a_file_that_is_none_of_ours(in_folder: Path, tree: Path, key: str, content: str) -> None:
    canary, path = in_folder.parent / "canary", in_folder.parent / "a.ckpt"
    if content == "payload":
        path.write_bytes(pickle.dumps(Payload(canary)))
    elif content == "text":
        path.write_text("hello")
    else:
        torch.save({"weight": torch.zeros(3)}, path)
    outcome = run_command("evaluate.py", f"ckpt={path}") if key == "ckpt" else train_on(tree, f"{key}={path}")
    assert_one_line(outcome, str(path))
    assert not canary.exists()
    assert not (in_folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["optimizer.weight_decay=-1"], "Invalid weight_decay value: -1"),
        (["optimizer.weight_decay=abc"], "optimizer: torch.optim.AdamW cannot be built"),
        (["+optimizer.foo=1"], "optimizer.foo: torch.optim.AdamW has no such argument"),
        (["optimizer._target_=nope.Adam"], "optimizer._target_=nope.Adam: No module named 'nope'"),
        (["optimizer._target_=torch.optim.Nope"], "torch.optim has no Nope"),
        (["phases.frozen.scheduler.factor=2"], "Factor should be < 1.0"),
        (["+phases.frozen.scheduler.foo=2"], "phases.frozen.scheduler.foo: "),
        (["+callbacks.best_checkpoint.mode=min"], "callbacks.best_checkpoint._target_: it is missing: +"),
        (
            ["callbacks.freeze_batch_norm._target_=cxrlit.training.callbacks.PhasedUnfreezing"],
            "callbacks.freeze_batch_norm: cxrlit.training.callbacks.PhasedUnfreezing cannot be built: TypeError",
        ),
        (["+callbacks.early_stopping.mode=min"], "val/auroc_macro is better higher: max"),
        (["monitor=val/f1"], "monitor=val/f1: it is not measured; it may be val/auroc_macro, "),
        (["monitor=auroc_macro"], "monitor=auroc_macro: it is not measured; did you mean val/auroc_macro?"),
        (
            ["loss=focal", "loss.pos_weight_cap=3"],
            "loss.pos_weight_cap: cxrlit.model.losses.FocalLoss takes no pos_weight",
        ),
        (["scheduler.warmup=5"], "phases.frozen.scheduler.warmup=5: the phase has "),
        (["~callbacks.freeze_batch_norm"], "callbacks.freeze_batch_norm"),
        (["+callbacks.foo={_target_:torch.nn.Identity}"], "torch.nn.Identity is no callback of Lightning"),
        (["+callbacks.foo={a:1}"], "callbacks.foo._target_: it is missing: +"),
        (["data.val_fraction=0.001"], "the val part has no image"),
        (["data.split=official"], "nih has no split of its own in its folder"),
    ],
)
def test_what_cannot_be_built_is_known_before_anything_is_written(
    in_folder: Path, tree: Path, weights: Path, arguments: list[str], part: str
) -> None:
    assert_one_line(train_on(tree, f"model.weights={weights}", *arguments), part)
    assert not (in_folder / "runs").exists()


def test_batches_of_one_image_are_refused_where_batch_norm_trains(in_folder: Path, tree: Path) -> None:
    arguments = ("phase=scratch", "model.weights=none", "batch_size=1")
    assert_one_line(train_on(tree, *arguments), "too few for the statistics of a BatchNorm")


def test_a_folder_that_cannot_be_written(in_folder: Path, tree: Path, weights: Path) -> None:
    (in_folder / "file").write_text("")
    outcome = train_on(tree, f"model.weights={weights}", "runs_dir=file/runs")
    assert_one_line(outcome, "file")


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("--help", "python "),
        ("--hydra-help", "--multirun,-m"),
        ("--info searchpath", "pkg://hydra.conf"),
        ("--cfg job", "seed: 0"),
        ("--cfg job cache_dir=${seed} --resolve", "cache_dir: 0"),
        ("--cfg job -p trainer", "# @package trainer"),
        ("--cfg hydra", "output_subdir: null"),
        ("--cfg all", "run:\n    dir: ."),
        ("-sc install=bash", "complete -o nospace"),
    ],
)
def test_what_hydra_shows_is_shown_and_nothing_runs(in_folder: Path, line: str, part: str) -> None:
    for script in ("train.py", "evaluate.py"):
        outcome = run_command(script, *line.split())
        assert outcome.code == 0
        assert outcome.err == ""
        assert part in outcome.out
    assert not list(in_folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "part"),
    [
        ("train.py", ["+imgsize=320"], "imgsize: there is no such key; did you mean img_size?"),
        ("train.py", ["data=radiographs"], "it may be chexpert, internal, mimic, nih"),
        ("train.py", ["-m", "lr=1e-3,abc"], "lr=abc"),
        ("train.py", ["data=nih", "data.root=nope"], "there is no such folder"),
        ("evaluate.py", ["ckpt=nope"], "there is no such checkpoint"),
    ],
)
def test_the_same_in_a_process_of_its_own(tmp_path: Path, script: str, arguments: list[str], part: str) -> None:
    done = subprocess.run(
        [sys.executable, str(REPO / script), *arguments],
        cwd=tmp_path, env=plain_environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert_one_line(Outcome(done.returncode, done.stdout, done.stderr), part)
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_what_the_key_wants(tmp_path: Path, tree: Path, in_folder: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    hint = f"{path}: not a checkpoint of cxrlit; plain weights go in model.weights=, or weights= of evaluate.py"
    assert_one_line(run_command("evaluate.py", f"ckpt={path}"), hint)
    assert_one_line(train_on(tree, f"init_from={path}"), hint)
    missing = in_folder / "nope.csv"
    assert_one_line(run_command("evaluate.py", "predictions=nope.csv"), f"{missing}: there is no such file")
    pytest.importorskip("pyarrow")
    assert_one_line(run_command("evaluate.py", "predictions=nope.parquet"), "nope.parquet: there is no such file")
