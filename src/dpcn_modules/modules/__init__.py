"""The boxes of the paper's figures, each usable alone."""

from dpcn_modules.modules.adapter import DCMInteraction
from dpcn_modules.modules.decoder import ASPP, Decoder
from dpcn_modules.modules.dynamic_convolution import DynamicConvolutionModule, KernelApplication, KernelGenerator
from dpcn_modules.modules.feature_filtering import FeatureFilteringModule
from dpcn_modules.modules.support_activation import SupportActivationModule

SAM = SupportActivationModule
FFM = FeatureFilteringModule
DCM = DynamicConvolutionModule

__all__ = [
    "ASPP",
    "DCM",
    "FFM",
    "SAM",
    "DCMInteraction",
    "Decoder",
    "DynamicConvolutionModule",
    "FeatureFilteringModule",
    "KernelApplication",
    "KernelGenerator",
    "SupportActivationModule",
]
