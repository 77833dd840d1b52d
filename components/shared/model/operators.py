"""The operators that networks are made of.

Chosen by name, because a namespace is too wide: `aten` has operators that open files
(`aten.from_file`) and operators that trust their arguments. These take tensors, numbers and
short words, and give tensors and sizes; none reads or writes anything else. They are what the
decoders of `segmentation_models_pytorch` on encoders of many families export to, and their kin.
"""

import re

_TARGET = re.compile(r"torch\.ops\.aten\.([a-z0-9_]{1,60})\.[A-Za-z0-9_]{1,40}")
_OF_SIZES = frozenset(
    f"_operator.{name}" for name in ("add", "floordiv", "mod", "mul", "neg", "sub")
)
_NAMES = """
    _assert_tensor_metadata abs acos acosh adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d add addcdiv addcmul addmm alias
    alpha_dropout amax amin any arange argmax argmin asin asinh atan atan2 atanh avg_pool1d
    avg_pool2d avg_pool3d baddbmm batch_norm bitwise_and bitwise_not bitwise_or bitwise_xor bmm
    broadcast_to cat ceil celu channel_shuffle chunk clamp clamp_max clamp_min clone col2im
    column_stack concat concatenate constant_pad_nd contiguous conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d convolution copy cos cosh
    cosine_similarity cumprod cumsum detach diagonal div dot dropout dsplit dstack einsum elu
    embedding empty eq erf exp expand expand_as expm1 feature_alpha_dropout feature_dropout fill
    flatten flip fliplr flipud floor floor_divide fmod frobenius_norm full full_like gather ge
    gelu glu grid_sampler grid_sampler_2d group_norm gt hardshrink hardsigmoid hardswish
    hardtanh hsplit hstack im2col index index_select inner instance_norm isfinite isinf isnan
    layer_norm le leaky_relu lerp lift_fresh lift_fresh_copy linalg_norm linalg_vector_norm
    linear log log10 log1p log2 log_sigmoid log_softmax logaddexp logical_and logical_not
    logical_or logical_xor logsumexp lt masked_fill masked_scatter matmul max max_pool1d
    max_pool2d max_pool2d_with_indices maximum mean meshgrid min minimum mish mm moveaxis
    movedim mul mv nan_to_num narrow native_group_norm native_layer_norm ne neg new_full
    new_ones new_zeros norm numel ones ones_like outer pad pairwise_distance permute
    pixel_shuffle pixel_unshuffle pow prelu prod ravel reciprocal reflection_pad1d
    reflection_pad2d relu relu6 remainder repeat repeat_interleave replication_pad2d reshape
    reshape_as rms_norm roll rot90 round rsqrt rsub scalar_tensor scaled_dot_product_attention
    scatter scatter_add select selu sigmoid sign silu sin sinc sinh slice softmax softplus
    softshrink sort split split_with_sizes sqrt square squeeze stack std std_mean sub sum
    swapaxes swapdims sym_numel sym_size sym_stride t take_along_dim tan tanh tensor_split
    threshold tile to topk transpose tril triu true_divide trunc type_as unbind unflatten unfold
    unsafe_chunk unsafe_split unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d
    upsample_nearest2d var var_mean view view_as vsplit vstack where zeros zeros_like
"""
_OPERATORS = frozenset(_NAMES.split())


def is_allowed_target(target: str) -> bool:
    """Whether a call's target is one of the operators, such as `torch.ops.aten.relu_.default`."""
    found = _TARGET.fullmatch(target)
    if found is None:
        return target in _OF_SIZES
    # a name that ends in _ writes into its first argument
    return found[1] in _OPERATORS or found[1].removesuffix("_") in _OPERATORS
