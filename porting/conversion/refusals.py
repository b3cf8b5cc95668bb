"""The TensorFlow ops that are not ported, each with the reason: what docs/ops.md and the porter's sentence say of them.

Names may hold `*`. Every op of `tf.raw_ops` and of tensorflow_text is ported, taken out of the graph beforehand, or here: a test
holds the table against TensorFlow's own list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Refusal:
    """Why some ops are not ported. `held`: whether the graph of a model that only computes could hold them at all."""

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
"""Ops that are ported although they have no converter: calls are inlined, control flow is made functional, inputs are inputs."""


REFUSALS = (
    # -- what a graph that only computes could hold -----------------------------------------------------------------------
    Refusal(
        "functions that PyTorch lacks",
        "PyTorch has no such function, one with other limits (Zeta), or one that is good to 7 digits in float64 (Bessel J and Y)",
        _names("""BesselJ0 BesselJ1 BesselY0 BesselY1 Betainc Zeta Polygamma Dawsn Expint FresnelCos FresnelSin Spence MatrixLogarithm MatrixSquareRoot
            IsotonicRegression SobolSample"""),
        held=True,
    ),
    Refusal(
        "what is unique up to a sign, a phase or an order",
        "TensorFlow's choice is its library's own: other numbers are as right",
        _names("Qr Eig ApproxTopK NearestNeighbors"),
        held=True,
    ),
    Refusal(
        "kernels that TensorFlow has for XLA or GPUs only",
        "there is nothing on a CPU to compare with, and no export for serving holds them",
        _names("""SegmentMaxV2 SegmentMinV2 SegmentProdV2 SegmentSumV2 FFTND IFFTND RFFTND IRFFTND Conv2DBackpropInputV2
            GenerateBoundingBoxProposals"""),
        held=True,
    ),
    Refusal(
        "sparse matrices in compressed rows",
        "`tf.raw_ops.SparseMatrix...` values, which only tensorflow.python.ops.linalg.sparse makes",
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
        "image files that are written, or read by other libraries",
        "an encoder's bytes are its library's own, and so are the colours at the edges of a window of a JPEG; WebP and JPEG XL have no reader among the dependencies",
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
        "maps, values of many tensors, and parts overwritten",
        "not ported yet: no layer writes them",
        _names("""TensorMap* EmptyTensorMap CompositeTensorVariant* TensorListElementShape TensorListPushBackBatch
            TensorStridedSliceUpdate"""),
        held=True,
    ),
    Refusal(
        "arrays of TensorFlow before 1.4",
        "replaced by TensorArrayV3 before SavedModels were in use",
        _names("TensorArray*V2 TensorArrayCloseV3"),
        held=True,
    ),
    Refusal(
        "tests and stubs",
        "TensorFlow's own tests, and values that a branch never gives",
        _names("Fact FakeParam PlaceholderV2"),
    ),
    Refusal(
        "quantized arithmetic",
        "8-bit integers with ranges (qint8, quint8, qint32), which PyTorch computes otherwise: dequantize the weights",
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
        "two runs of TensorFlow differ, or would without its own generator: export with training=False",
        _names("""Random* Stateful* StatelessRandom* StatelessParameterizedTruncatedNormal StatelessShuffle
            StatelessSampleDistortedBoundingBox SampleDistortedBoundingBox* *CandidateSampler Rng* AnonymousSeedGenerator
            AnonymousRandomSeedGenerator DummySeedGenerator DeleteSeedGenerator DeleteRandomSeedGenerator NonDeterministicInts
            FractionalAvgPool FractionalMaxPool KMC2ChainInitialization KmeansPlusPlusInitialization AllCandidateSampler
            ComputeAccidentalHits"""),
        held=True,
    ),
    Refusal(
        "decision forests and boosted trees",
        "a tree ensemble, and not a tower; their kernels are not in TensorFlow any more",
        _names("BoostedTrees* IsBoostedTrees*"),
        held=True,
    ),
    Refusal(
        "GPU-only layers",
        "cuDNN's own weight layout; Keras writes its layers so that a CPU runs them",
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
    # -- what only training, saving or serving machinery holds -----------------------------------------------------------
    Refusal(
        "gradients",
        "the derivative of another op: it belongs to training",
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
        "what it gives depends on what ran before",
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
        "gone before there were SavedModels",
        "TensorFlow took it out of graphs before its version 1.0",
        _names("""AdjustContrast BatchCholesky BatchFFT* BatchIFFT* BatchMatrix* BatchSelfAdjointEig* BatchSvd Conv3DBackpropInput
            RandomCrop SelfAdjointEig TensorArray TensorArrayClose TensorArrayConcat TensorArrayGather TensorArrayPack TensorArrayRead
            TensorArrayScatter TensorArraySize TensorArraySplit TensorArrayUnpack TensorArrayWrite"""),
    ),
)  # fmt: skip


def refusal_of(op: str, refusals: Sequence[Refusal] = REFUSALS) -> Refusal | None:
    """Why an op is not ported; None for one that nobody has asked for, or that TensorFlow does not have."""
    return next((refusal for refusal in refusals if refusal.covers(op)), None)
