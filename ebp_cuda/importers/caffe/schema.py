"""The messages of Caffe's model files: names and field numbers as facts of the format, built without protoc.

`NetParameter` reads prototxt text (through protobuf's text_format) and writes binary caffemodels. Reading big
caffemodels goes through `wire.py` instead, which does not copy the weights.

One message a line: `name number type[=default]`; `*` marks a repeated field, `+` a repeated packed one.
Solver settings and the options of data sources that say nothing about the network are left out: `text.py` reports
them. Fields and layer types that only forks of Caffe know are in: text has no numbers, so where the forks gave one
number to several fields, ours are above 9000.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "caffe"

_ENUMS = """
Phase: TRAIN 0, TEST 1
DimCheckMode: STRICT 0, PERMISSIVE 1
VarianceNorm: FAN_IN 0, FAN_OUT 1, AVERAGE 2
PoolMethod: MAX 0, AVE 1, STOCHASTIC 2, AVE_EXC_PAD 3
RoundMode: CEIL 0, FLOOR 1
BNMode: LEARN 0, INFERENCE 1
NormalizationMode: FULL 0, VALID 1, BATCH_SIZE 2, NONE 3
DB: LEVELDB 0, LMDB 1
HingeNorm: L1 1, L2 2
EltwiseOp: PROD 0, SUM 1, MAX 2
NormRegion: ACROSS_CHANNELS 0, WITHIN_CHANNEL 1
ReductionOp: SUM 1, ASUM 2, SUMSQ 3, MEAN 4
Engine: DEFAULT 0, CAFFE 1, CUDNN 2
V1LayerType: NONE 0, ACCURACY 1, BNLL 2, CONCAT 3, CONVOLUTION 4, DATA 5, DROPOUT 6, EUCLIDEAN_LOSS 7, FLATTEN 8, \
HDF5_DATA 9, HDF5_OUTPUT 10, IM2COL 11, IMAGE_DATA 12, INFOGAIN_LOSS 13, INNER_PRODUCT 14, LRN 15, \
MULTINOMIAL_LOGISTIC_LOSS 16, POOLING 17, RELU 18, SIGMOID 19, SOFTMAX 20, SOFTMAX_LOSS 21, SPLIT 22, TANH 23, \
WINDOW_DATA 24, ELTWISE 25, POWER 26, SIGMOID_CROSS_ENTROPY_LOSS 27, HINGE_LOSS 28, MEMORY_DATA 29, ARGMAX 30, \
THRESHOLD 31, DUMMY_DATA 32, SLICE 33, MVN 34, ABSVAL 35, SILENCE 36, CONTRASTIVE_LOSS 37, EXP 38, DECONVOLUTION 39
"""

_MESSAGES = """
BlobShape: dim+ 1 int64
BlobProto: num 1 int32=0, channels 2 int32=0, height 3 int32=0, width 4 int32=0, data+ 5 float, diff+ 6 float, \
shape 7 BlobShape, double_data+ 8 double, double_diff+ 9 double
BlobProtoVector: blobs* 1 BlobProto
Datum: channels 1 int32, height 2 int32, width 3 int32, data 4 bytes, label 5 int32, float_data* 6 float, \
encoded 7 bool=false
FillerParameter: type 1 string=constant, value 2 float=0, min 3 float=0, max 4 float=1, mean 5 float=0, \
std 6 float=1, sparse 7 int32=-1, variance_norm 8 VarianceNorm=FAN_IN
NetState: phase 1 Phase=TEST, level 2 int32=0, stage* 3 string
NetStateRule: phase 1 Phase, min_level 2 int32, max_level 3 int32, stage* 4 string, not_stage* 5 string
ParamSpec: name 1 string, share_mode 2 DimCheckMode, lr_mult 3 float=1, decay_mult 4 float=1
TransformationParameter: scale 1 float=1, mirror 2 bool=false, crop_size 3 uint32=0, mean_file 4 string, \
mean_value* 5 float, force_color 6 bool=false, force_gray 7 bool=false
AccuracyParameter: top_k 1 uint32=1, axis 2 int32=1, ignore_label 3 int32
ArgMaxParameter: out_max_val 1 bool=false, top_k 2 uint32=1, axis 3 int32
BatchNormParameter: use_global_stats 1 bool, moving_average_fraction 2 float=0.999, eps 3 float=1e-5, \
engine 9001 Engine=DEFAULT, update_global_stat 9002 bool, update_global_stats 9003 bool, scale_bias 9004 bool, \
scale_filler 9005 FillerParameter, bias_filler 9006 FillerParameter, filler 9007 FillerParameter
BNParameter: slope_filler 1 FillerParameter, bias_filler 2 FillerParameter, momentum 3 float=0.9, eps 4 float=1e-5, \
frozen 5 bool=false, engine 6 Engine=DEFAULT, scale_filler 9001 FillerParameter, shift_filler 9002 FillerParameter, \
bn_mode 9003 BNMode=LEARN
ClipParameter: min 1 float, max 2 float
BiasParameter: axis 1 int32=1, num_axes 2 int32=1, filler 3 FillerParameter
ConcatParameter: concat_dim 1 uint32=1, axis 2 int32=1
ConvolutionParameter: num_output 1 uint32, bias_term 2 bool=true, pad* 3 uint32, kernel_size* 4 uint32, \
group 5 uint32=1, stride* 6 uint32, weight_filler 7 FillerParameter, bias_filler 8 FillerParameter, \
pad_h 9 uint32=0, pad_w 10 uint32=0, kernel_h 11 uint32, kernel_w 12 uint32, stride_h 13 uint32, stride_w 14 uint32, \
engine 15 Engine=DEFAULT, axis 16 int32=1, force_nd_im2col 17 bool=false, dilation* 18 uint32, \
hole* 9001 uint32, hole_h 9002 uint32, hole_w 9003 uint32, \
pad_t 9004 uint32, pad_b 9005 uint32, pad_l 9006 uint32, pad_r 9007 uint32
CropParameter: axis 1 int32=2, offset* 2 uint32
DataParameter: source 1 string, scale 2 float=1, mean_file 3 string, batch_size 4 uint32, crop_size 5 uint32=0, \
mirror 6 bool=false, rand_skip 7 uint32=0, backend 8 DB=LEVELDB, force_encoded_color 9 bool=false, prefetch 10 uint32
HDF5DataParameter: source 1 string, batch_size 2 uint32, shuffle 3 bool=false
HDF5OutputParameter: file_name 1 string
HingeLossParameter: norm 1 HingeNorm=L1
InfogainLossParameter: source 1 string, axis 2 int32=1
ContrastiveLossParameter: margin 1 float=1, legacy_version 2 bool=false
ParameterParameter: shape 1 BlobShape
RecurrentParameter: num_output 1 uint32=0, weight_filler 2 FillerParameter, bias_filler 3 FillerParameter, \
debug_info 4 bool=false, expose_hidden 5 bool=false
WindowDataParameter: source 1 string, scale 2 float=1, mean_file 3 string, batch_size 4 uint32, \
crop_size 5 uint32=0, mirror 6 bool=false, fg_threshold 7 float=0.5, bg_threshold 8 float=0.5, \
fg_fraction 9 float=0.25, context_pad 10 uint32=0, crop_mode 11 string=warp, cache_images 12 bool=false, \
root_folder 13 string
ImageDataParameter: source 1 string, scale 2 float=1, mean_file 3 string, batch_size 4 uint32=1, \
crop_size 5 uint32=0, mirror 6 bool=false, rand_skip 7 uint32=0, shuffle 8 bool=false, root_folder 12 string, \
new_height 9 uint32=0, new_width 10 uint32=0, is_color 11 bool=true
MemoryDataParameter: batch_size 1 uint32, channels 2 uint32, height 3 uint32, width 4 uint32
DropoutParameter: dropout_ratio 1 float=0.5, scale_train 9001 bool=true, engine 9002 Engine=DEFAULT
DummyDataParameter: data_filler* 1 FillerParameter, num* 2 uint32, channels* 3 uint32, height* 4 uint32, \
width* 5 uint32, shape* 6 BlobShape
EltwiseParameter: operation 1 EltwiseOp=SUM, coeff* 2 float, stable_prod_grad 3 bool=true
ELUParameter: alpha 1 float=1
EmbedParameter: num_output 1 uint32, input_dim 2 uint32, bias_term 3 bool=true, \
weight_filler 4 FillerParameter, bias_filler 5 FillerParameter
ExpParameter: base 1 float=-1, scale 2 float=1, shift 3 float=0
FlattenParameter: axis 1 int32=1, end_axis 2 int32=-1
InnerProductParameter: num_output 1 uint32, bias_term 2 bool=true, weight_filler 3 FillerParameter, \
bias_filler 4 FillerParameter, axis 5 int32=1, transpose 6 bool=false
InputParameter: shape* 1 BlobShape
InterpParameter: height 1 int32=0, width 2 int32=0, zoom_factor 3 int32=1, shrink_factor 4 int32=1, \
pad_beg 5 int32=0, pad_end 6 int32=0
LossParameter: ignore_label 1 int32, normalization 3 NormalizationMode=VALID, \
normalize 2 bool
LogParameter: base 1 float=-1, scale 2 float=1, shift 3 float=0
LRNParameter: local_size 1 uint32=5, alpha 2 float=1, beta 3 float=0.75, norm_region 4 NormRegion=ACROSS_CHANNELS, \
k 5 float=1, engine 6 Engine=DEFAULT
NormalizeParameter: across_spatial 1 bool=true, scale_filler 2 FillerParameter, channel_shared 3 bool=true, \
eps 4 float=1e-10
PermuteParameter: order* 1 uint32
PythonParameter: module 1 string, layer 2 string, param_str 3 string, share_in_parallel 4 bool=false
MVNParameter: normalize_variance 1 bool=true, across_channels 2 bool=false, eps 3 float=1e-9
PoolingParameter: pool 1 PoolMethod=MAX, kernel_size 2 uint32, stride 3 uint32=1, pad 4 uint32=0, kernel_h 5 uint32, \
kernel_w 6 uint32, stride_h 7 uint32, stride_w 8 uint32, pad_h 9 uint32=0, pad_w 10 uint32=0, \
engine 11 Engine=DEFAULT, global_pooling 12 bool=false, round_mode 13 RoundMode=CEIL, ceil_mode 9001 bool=true, \
pad_t 9002 uint32, pad_b 9003 uint32, pad_l 9004 uint32, pad_r 9005 uint32
PowerParameter: power 1 float=1, scale 2 float=1, shift 3 float=0
PReLUParameter: filler 1 FillerParameter, channel_shared 2 bool=false
ReLUParameter: negative_slope 1 float=0, engine 2 Engine=DEFAULT, relu6 9001 bool=false
ReductionParameter: operation 1 ReductionOp=SUM, axis 2 int32=0, coeff 3 float=1
ReshapeParameter: shape 1 BlobShape, axis 2 int32=0, num_axes 3 int32=-1
ScaleParameter: axis 1 int32=1, num_axes 2 int32=1, filler 3 FillerParameter, bias_term 4 bool=false, \
bias_filler 5 FillerParameter
ReorgParameter: stride 1 uint32, reverse 2 bool=false
ShuffleChannelParameter: group 1 uint32=1
SliceParameter: slice_dim 1 uint32=1, slice_point* 2 uint32, axis 3 int32=1
SqueezeParameter: axis* 1 int32
SoftmaxParameter: engine 1 Engine=DEFAULT, axis 2 int32=1
SigmoidParameter: engine 1 Engine=DEFAULT
SPPParameter: pyramid_height 1 uint32, pool 2 PoolMethod=MAX, engine 6 Engine=DEFAULT
SwishParameter: beta 1 float=1
TanHParameter: engine 1 Engine=DEFAULT
ThresholdParameter: threshold 1 float=0
TileParameter: axis 1 int32=1, tiles 2 int32
UpsampleParameter: scale 1 int32=2, scale_h 2 int32, scale_w 3 int32, pad_out_h 4 bool=false, pad_out_w 5 bool=false, \
upsample_h 6 int32, upsample_w 7 int32
LayerParameter: name 1 string, type 2 string, bottom* 3 string, top* 4 string, loss_weight* 5 float, \
param* 6 ParamSpec, blobs* 7 BlobProto, include* 8 NetStateRule, exclude* 9 NetStateRule, phase 10 Phase, \
propagate_down* 11 bool, transform_param 100 TransformationParameter, concat_param 104 ConcatParameter, \
convolution_param 106 ConvolutionParameter, data_param 107 DataParameter, dropout_param 108 DropoutParameter, \
dummy_data_param 109 DummyDataParameter, eltwise_param 110 EltwiseParameter, exp_param 111 ExpParameter, \
image_data_param 115 ImageDataParameter, inner_product_param 117 InnerProductParameter, lrn_param 118 LRNParameter, \
memory_data_param 119 MemoryDataParameter, mvn_param 120 MVNParameter, pooling_param 121 PoolingParameter, \
power_param 122 PowerParameter, relu_param 123 ReLUParameter, softmax_param 125 SoftmaxParameter, \
slice_param 126 SliceParameter, prelu_param 131 PReLUParameter, reshape_param 133 ReshapeParameter, \
log_param 134 LogParameter, flatten_param 135 FlattenParameter, batch_norm_param 139 BatchNormParameter, \
elu_param 140 ELUParameter, bias_param 141 BiasParameter, scale_param 142 ScaleParameter, \
input_param 143 InputParameter, loss_param 101 LossParameter, accuracy_param 102 AccuracyParameter, \
argmax_param 103 ArgMaxParameter, sigmoid_param 124 SigmoidParameter, tanh_param 127 TanHParameter, \
threshold_param 128 ThresholdParameter, python_param 130 PythonParameter, spp_param 132 SPPParameter, \
reduction_param 136 ReductionParameter, embed_param 137 EmbedParameter, tile_param 138 TileParameter, \
crop_param 144 CropParameter, swish_param 147 SwishParameter, clip_param 148 ClipParameter, \
contrastive_loss_param 105 ContrastiveLossParameter, hdf5_data_param 112 HDF5DataParameter, \
hdf5_output_param 113 HDF5OutputParameter, hinge_loss_param 114 HingeLossParameter, \
infogain_loss_param 116 InfogainLossParameter, window_data_param 129 WindowDataParameter, \
parameter_param 145 ParameterParameter, recurrent_param 146 RecurrentParameter, \
permute_param 202 PermuteParameter, norm_param 206 NormalizeParameter, interp_param 9001 InterpParameter, \
upsample_param 9002 UpsampleParameter, bn_param 9003 BNParameter, reorg_param 9005 ReorgParameter, \
squeeze_param 9006 SqueezeParameter, shuffle_channel_param 9004 ShuffleChannelParameter
V0LayerParameter: name 1 string, type 2 string, num_output 3 uint32, biasterm 4 bool=true, \
weight_filler 5 FillerParameter, bias_filler 6 FillerParameter, pad 7 uint32=0, kernelsize 8 uint32, group 9 uint32=1, \
stride 10 uint32=1, pool 11 PoolMethod=MAX, dropout_ratio 12 float=0.5, local_size 13 uint32=5, alpha 14 float=1, \
beta 15 float=0.75, source 16 string, scale 17 float=1, meanfile 18 string, batchsize 19 uint32, cropsize 20 uint32=0, \
mirror 21 bool=false, k 22 float=1, blobs* 50 BlobProto, blobs_lr* 51 float, weight_decay* 52 float, \
rand_skip 53 uint32=0, det_fg_threshold 54 float=0.5, det_bg_threshold 55 float=0.5, det_fg_fraction 56 float=0.25, \
det_context_pad 58 uint32=0, det_crop_mode 59 string=warp, new_num 60 int32=0, new_channels 61 int32=0, \
new_height 62 int32=0, new_width 63 int32=0, shuffle_images 64 bool=false, concat_dim 65 uint32=1
V1LayerParameter: layer 1 V0LayerParameter, bottom* 2 string, top* 3 string, name 4 string, type 5 V1LayerType, \
blobs* 6 BlobProto, blobs_lr* 7 float, weight_decay* 8 float, concat_param 9 ConcatParameter, \
convolution_param 10 ConvolutionParameter, data_param 11 DataParameter, dropout_param 12 DropoutParameter, \
image_data_param 15 ImageDataParameter, inner_product_param 17 InnerProductParameter, lrn_param 18 LRNParameter, \
pooling_param 19 PoolingParameter, power_param 21 PowerParameter, memory_data_param 22 MemoryDataParameter, \
eltwise_param 24 EltwiseParameter, dummy_data_param 26 DummyDataParameter, relu_param 30 ReLUParameter, \
slice_param 31 SliceParameter, include* 32 NetStateRule, exclude* 33 NetStateRule, mvn_param 34 MVNParameter, \
argmax_param 23 ArgMaxParameter, threshold_param 25 ThresholdParameter, sigmoid_param 38 SigmoidParameter, \
loss_param 42 LossParameter, accuracy_param 27 AccuracyParameter, tanh_param 37 TanHParameter, \
loss_weight* 35 float, transform_param 36 TransformationParameter, softmax_param 39 SoftmaxParameter, \
exp_param 41 ExpParameter, param* 1001 string, blob_share_mode* 1002 DimCheckMode
NetParameter: name 1 string, layers* 2 V1LayerParameter, input* 3 string, input_dim* 4 int32, \
force_backward 5 bool=false, state 6 NetState, debug_info 7 bool=false, input_shape* 8 BlobShape, \
layer* 100 LayerParameter
"""

_SCALARS = {
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}


def _add_field(message: Any, text: str, enums: set[str]) -> None:
    name, number, kind = text.split()
    kind, _, default = kind.partition("=")
    field = message.field.add(name=name.rstrip("*+"), number=int(number))
    field.label = field.LABEL_REPEATED if name[-1] in "*+" else field.LABEL_OPTIONAL
    if name.endswith("+"):
        field.options.packed = True
    if default:
        field.default_value = default
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind in enums:
        field.type, field.type_name = field.TYPE_ENUM, f".{PACKAGE}.{kind}Enum.{kind}"
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


def _add_later_settings(messages: Mapping[str, Any]) -> None:
    """Forks of the time of V1 gave its layers the settings that Caffe then had in the next format only."""
    older = messages["V1LayerParameter"]
    known = {field.name for field in older.field}
    for field in messages["LayerParameter"].field:
        if field.name.endswith("_param") and field.name not in known:
            older.field.add().CopyFrom(field)
            older.field[-1].number = 20_000 + field.number


def _build() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="ebp_cuda/caffe.proto", package=PACKAGE, syntax="proto2")
    enums = set()
    for line in _ENUMS.strip().splitlines():
        name, _, values = line.partition(": ")
        enums.add(name)
        # each in a message of its own: enum values share the scope of their enum, and MAX, SUM, ... recur
        enum = file.message_type.add(name=f"{name}Enum").enum_type.add(name=name)
        for value in values.split(", "):
            key, number = value.split()
            enum.value.add(name=key, number=int(number))
    for line in _MESSAGES.strip().splitlines():
        name, _, fields = line.partition(": ")
        message = file.message_type.add(name=name)
        for text in fields.split(", "):
            _add_field(message, text, enums)
    _add_later_settings({message.name: message for message in file.message_type})
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _build()


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


NetParameter = _message("NetParameter")
LayerParameter = _message("LayerParameter")
FillerParameter = _message("FillerParameter")


def enum_name(message: Any, field: str) -> str:
    """The name of the value that an enum field holds: enum_name(pooling_param, "pool") is "MAX"."""
    kind = message.DESCRIPTOR.fields_by_name[field].enum_type
    return str(kind.values_by_number[getattr(message, field)].name)
