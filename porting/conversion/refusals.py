"""The TensorFlow ops that are not ported, each with the reason, for docs/ops.md and error messages.

Names may contain `*`. Every op of `tf.raw_ops` and tensorflow_text is either ported, removed from the graph before
conversion, or listed here: a test compares the table with TensorFlow's own list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Refusal:
    """Why some ops are not ported. `held`: whether an inference graph could contain them at all."""

    title: str
    reason: str
    names: tuple[str, ...]
    held: bool = False

    def covers(self, op: str) -> bool:
        return any(fnmatchcase(op, name) for name in self.names)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


BEFORE = _names(
    """Switch Merge Enter Exit NextIteration LoopCond RefSwitch RefMerge RefEnter RefExit RefNextIteration
    PartitionedCall StatefulPartitionedCall Placeholder ControlTrigger"""
)
"""Ops that are ported without a converter: calls are inlined, control flow becomes functional, placeholders become
inputs."""


REFUSALS = (
    # -- possible in an inference graph
    # -----------------------------------------------------------------------------------
    Refusal(
        "functions that PyTorch lacks",
        "PyTorch has no such function, one with other limits (Zeta), or one with 7 digits in float64 (Bessel J and Y)",
        _names("""BesselJ0 BesselJ1 BesselY0 BesselY1 Betainc Zeta Polygamma Dawsn Expint FresnelCos FresnelSin Spence MatrixLogarithm MatrixSquareRoot
            IsotonicRegression SobolSample"""),
        held=True,
    ),
    Refusal(
        "results unique only up to a sign, a phase or an order",
        "TensorFlow's choice is that of its library: other results are equally right",
        _names("Qr Eig ApproxTopK NearestNeighbors"),
        held=True,
    ),
    Refusal(
        "kernels that TensorFlow has only for XLA or GPUs",
        "there is nothing on a CPU to compare with, and serving exports do not contain them",
        _names("""SegmentMaxV2 SegmentMinV2 SegmentProdV2 SegmentSumV2 FFTND IFFTND RFFTND IRFFTND Conv2DBackpropInputV2
            GenerateBoundingBoxProposals"""),
        held=True,
    ),
    Refusal(
        "sparse matrices in compressed rows",
        "`tf.raw_ops.SparseMatrix...` values, which only tensorflow.python.ops.linalg.sparse creates",
        _names("SparseMatrix* CSRSparseMatrix* DenseToCSRSparseMatrix SparseTensorToCSRSparseMatrix"),
        held=True,
    ),
    Refusal(
        "sequence examples and other formats",
        "not ported yet: `tf.SequenceExample`, protos by descriptor, JSON examples, serialized tensors",
        _names("""ParseSequenceExample ParseSequenceExampleV2 ParseSingleSequenceExample DecodeProtoV2 EncodeProto DecodeJSONExample
            SerializeTensor SerializeSparse SerializeManySparse DeserializeSparse DeserializeManySparse"""),
        held=True,
    ),
    Refusal(
        "sound",
        "not ported yet: WAV files and the features of the speech commands example (tf.signal's spectrograms are ported)",
        _names("DecodeWav EncodeWav AudioSpectrogram Mfcc"),
        held=True,
    ),
    Refusal(
        "writing image files, or reading them with other libraries",
        "an encoder's bytes depend on its library, and so do edges of cropped JPEGs; no dependency reads WebP, JXL",
        _names("EncodeJpeg EncodeJpegVariableQuality EncodePng DecodeAndCropJpeg DecodeWebP DecodeJxl ExtractJpegShape"),
        held=True,
    ),
    Refusal(
        "detection and geometry of images",
        "not ported yet: a tower embeds whole images",
        _names("""NonMaxSuppression* CombinedNonMaxSuppression DrawBoundingBoxes DrawBoundingBoxesV2 ExtractGlimpse ExtractGlimpseV2
            ImageProjectiveTransformV2 ImageProjectiveTransformV3 FusedResizeAndPadConv2D FusedPadConv2D"""),
        held=True,
    ),
    Refusal(
        "decoders",
        "not ported yet: transcripts of sound",
        _names("CTCGreedyDecoder CTCBeamSearchDecoder"),
        held=True,
    ),
    Refusal(
        "sets, and distances of sequences",
        "not ported yet",
        _names("*SetOperation SetSize EditDistance"),
        held=True,
    ),
    Refusal(
        "rare text",
        "not ported yet: phrases, BOISE tags, offsets through Unicode normalization",
        _names("""PhraseTokenize TFText>PhraseDetokenize TFText>BoiseTagsToOffsets TFText>OffsetsToBoiseTags SentenceFragmentsV2
            NormalizeUTF8WithOffsetsMap FindSourceOffsets"""),
        held=True,
    ),
    Refusal(
        "maps, values of several tensors, and strided assignment",
        "not ported yet: no layer writes them",
        _names("""TensorMap* EmptyTensorMap CompositeTensorVariant* TensorListElementShape TensorListPushBackBatch
            TensorStridedSliceUpdate"""),
        held=True,
    ),
    Refusal(
        "arrays of TensorFlow before 1.4",
        "TensorArrayV3 replaced them before SavedModels were in use",
        _names("TensorArray*V2 TensorArrayCloseV3"),
        held=True,
    ),
    Refusal(
        "tests and stubs",
        "TensorFlow's own tests, and values that a branch never returns",
        _names("Fact FakeParam PlaceholderV2"),
    ),
    Refusal(
        "quantized arithmetic",
        "8-bit integers with ranges (qint8, quint8, qint32), computed differently in PyTorch: dequantize the weights",
        _names("""Quantized* QuantizeV2 QuantizeDownAndShrinkRange Requantiz* Uniform*Quantize* UniformQuantized* UniformRequantize UniformDequantize
            Dequantize"""),
        held=True,
    ),
    Refusal(
        "compiled programs",
        "a program for XLA, not a graph: export the model as TensorFlow ops (jax2tf with native_serialization=False, "
        "enable_xla=False)",
        _names("Xla*"),
        held=True,
    ),
    Refusal(
        "code that is not in the model",
        "calls Python, or a program, of the process that saved the model",
        _names("PyFunc PyFuncStateless EagerPyFunc RemoteCall For SymbolicGradient"),
        held=True,
    ),
    Refusal(
        "random numbers",
        "two runs of TensorFlow differ, or would need its own random generator: export with training=False",
        _names("""Random* Stateful* StatelessRandom* StatelessParameterizedTruncatedNormal StatelessShuffle
            StatelessSampleDistortedBoundingBox SampleDistortedBoundingBox* *CandidateSampler Rng* AnonymousSeedGenerator
            AnonymousRandomSeedGenerator DummySeedGenerator DeleteSeedGenerator DeleteRandomSeedGenerator NonDeterministicInts
            FractionalAvgPool FractionalMaxPool KMC2ChainInitialization KmeansPlusPlusInitialization AllCandidateSampler
            ComputeAccidentalHits"""),
        held=True,
    ),
    Refusal(
        "decision forests and boosted trees",
        "a tree ensemble, not a tower; TensorFlow has removed their kernels",
        _names("BoostedTrees* IsBoostedTrees*"),
        held=True,
    ),
    Refusal(
        "GPU-only layers",
        "cuDNN's own weight layout; Keras writes layers that run on a CPU",
        _names("Cudnn*"),
        held=True,
    ),
    Refusal(
        "elements of a tf.data pipeline",
        "an element comes from a pipeline: only pipelines of constants are read",
        _names("""*Dataset* *Iterator* Iterator* *Optional* CompressElement UncompressElement GetElementAtIndex GetOptions WindowOp
            Unstage Stage* MapStage MapUnstage* MapPeek MapSize MapClear MapIncompleteSize OrderedMap* MapDefun AnonymousMemoryCache
            DeleteMemoryCache DummyMemoryCache DummyIterationCounter *ThreadPoolHandle *StatsAggregator* ComputeBatchSize"""),
        held=True,
    ),
    # -- only for training, saving or serving machinery
    # -------------------------------------------------------------------
    Refusal(
        "gradients",
        "the gradient of another op: it belongs to training",
        _names("""*Grad *GradV2 *GradV3 *GradGrad* *GradWithArgmax *GradWithShape *Gradient *BackpropFilter*
            DepthwiseConv2dNativeBackprop* Dilation2DBackprop* CudnnRNNBackprop* IgammaGradA BroadcastGradientArgs
            CropAndResizeGrad* CTCLoss CTCLossV2 *AccumulatorApplyGradient *AccumulatorTakeGradient"""),
    ),
    Refusal(
        "updates of variables and tables",
        "changes what the model holds",
        _names("""Apply* ResourceApply* SparseApply* ResourceSparseApply* Assign* ResourceScatter* Scatter* ResourceStridedSliceAssign
            StridedSliceAssign *Accumulator* CountUpTo ResourceCountUpTo LookupTableInsert* LookupTableImport* LookupTableRemoveV2
            Sdca* DestroyResourceOp TemporaryVariable DestroyTemporaryVariable Inplace* DisableCopyOnRead RefIdentity RefSelect
            IsVariableInitialized VarIsInitializedOp MutableDenseHashTable InitializeTable*"""),
    ),
    Refusal(
        "files, and the checkpoint",
        "reads or writes files when it runs",
        _names("""Save* Restore* Merge*Checkpoints ReadFile WriteFile MatchingFiles *Reader *ReaderV2 Reader* ShardedFilename
            ShardedFilespec ImmutableConst LoadAndRemapMatrix GenerateVocabRemapping RecordInput DistributedSave
            FileSystemSetConfiguration"""),
    ),
    Refusal(
        "queues, sessions and other state",
        "its result depends on previous runs",
        _names("""*Queue *QueueV2 Queue* Barrier* *Barrier Stack* Batch Unbatch BatchFunction GetSession* DeleteSessionTensor Mutex*
            ConsumeMutexLock AddSparseToTensorsMap AddManySparseToTensorsMap TakeManySparseFromTensorsMap Timestamp Abort
            SyncDevice DeviceIndex CheckPinned GlobalIterId"""),
    ),
    Refusal(
        "logs and summaries",
        "writes a log",
        _names("*Summary* PrintV2 ImportEvent Debug* CheckNumericsV2 Copy CopyHost WorkerHeartbeat"),
    ),
    Refusal(
        "many devices",
        "moves values between devices or machines",
        _names("""*TPU* Collective* Nccl* Send Recv *SparseCore* *Infeed* *Outfeed* *Physical* Prelinearize* AllToAll
            CrossReplicaSum ConvertToCooTensor StoreMinibatchStatisticsInFdo ReadVariableXlaSplitND AssignVariableXlaConcatND"""),
    ),
    Refusal(
        "removed before SavedModels existed",
        "TensorFlow removed them before version 1.0",
        _names("""AdjustContrast BatchCholesky BatchFFT* BatchIFFT* BatchMatrix* BatchSelfAdjointEig* BatchSvd Conv3DBackpropInput
            RandomCrop SelfAdjointEig TensorArray TensorArrayClose TensorArrayConcat TensorArrayGather TensorArrayPack TensorArrayRead
            TensorArrayScatter TensorArraySize TensorArraySplit TensorArrayUnpack TensorArrayWrite"""),
    ),
)  # fmt: skip


def refusal_of(op: str, refusals: Sequence[Refusal] = REFUSALS) -> Refusal | None:
    """Why an op is not ported; None for an op that is neither listed nor TensorFlow's."""
    return next((refusal for refusal in refusals if refusal.covers(op)), None)
