"""Reads a SavedModel without TensorFlow: protos, tensor bundle, signatures, functions, variables, tables and assets."""

from porting.saved_model.decode import AttrPlaceholder, FunctionRef
from porting.saved_model.model import Function, SavedModel, Signature
from porting.saved_model.read import read
from porting.saved_model.restored import Trace
from porting.saved_model.tables import Table
from porting.saved_model.variables import Variable

__all__ = [
    "AttrPlaceholder",
    "Function",
    "FunctionRef",
    "SavedModel",
    "Signature",
    "Table",
    "Trace",
    "Variable",
    "read",
]
