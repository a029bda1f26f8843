"""What may be asked of FAISS from afar, derived from FAISS's own classes.

A class, method or field that is not found here does not exist for a caller. What a method is given is checked
by FAISS's own Python wrappers; methods without one, which take pointers, are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import faiss

from faissbase.dropin import gpus, pointing
from faissbase.dropin.bounds import check_effort
from faissbase.dropin.filling import has_all
from faissbase.dropin.frames import Opaque
from faissbase.dropin.refusals import Refused as Refused


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MADE = (
    faiss.Index,
    faiss.IndexBinary,
    faiss.VectorTransform,
    faiss.Quantizer,
    faiss.InvertedLists,
    faiss.Clustering,  # it is given an index to train
    faiss.Clustering1D,
    *gpus.MADE,
)
_VALUES = (faiss.SearchParameters, faiss.IDSelector, faiss.ClusteringParameters, faiss.ParameterSpace)
# Why they are not made from afar, and what is used instead.
_NEVER_MADE = {
    "OnDiskInvertedLists": "opens a file of its machine: use ArrayInvertedLists, or merge within "
    "faiss_proxy.local()",
    "PyCallbackIDSelector": "calls back into Python",
    "IDSelectorTranslated": "borrows memory",
    "ReadOnlyInvertedLists": "is abstract",
    "BlockInvertedLists": "borrows memory: fetch the index with .to_local()",
}
# They make what they are given a part of the object, which does not keep it alive.
PARTS_BY = _words(
    "add_shard add_replica addIndex add_sub_index prepend_transform replace_vt replace_invlists"
)
# They move or copy what another object has, and neither leads to the other afterwards.
MOVING = _words("merge_from merge_into copy_subset_to")
# What they attach or take over must not be a part of the object itself.
ATTACHING = PARTS_BY | MOVING
# Methods of C++ without a wrapper, whose arguments are numbers and objects.
_PLAIN = _words(
    """
    reset merge_from check_compatible_for_merge sa_code_size cal_nlist set_direct_map_type
    make_direct_map get_list_size list_size imbalance_factor print_stats compute_ntotal size at
    prepend_transform add_shard remove_shard add_replica remove_replica addIndex removeIndex count
    syncWithSubIndexes copy_subset_to reorder_vectors copy_from set_parameter set_index_parameter
    set_index_parameters get_distance_computer_type train_pq get_code_size initialize sync_l2norms check
    set_pq_quantizer set_rotation apply reverse_transform merge_into is_similar_to print_neighbor_stats
    nb_neighbors cum_nb_neighbors max_level_ is_empty empty compute_cross_product precompute_table
    set_derived_values reset_permutation is_member apply_py check_identical add_sub_index
    set_centroids_norms init_hypercube init_sphere display replace_vt check_consistency construct_rev_map
    set_is_orthonormal replace_invlists get_final_graph hashtable_size train_encoder_num_vectors
    fast_scan_code_size coarse_code_size memory_per_point check_ids_sorted lookup_table_is_3d get_numeric_type
    update_permutation
    """
)
# The same, where others of the name take something else.
_PLAIN_OF = {
    "init": (faiss.RandomRotationMatrix, faiss.HadamardRotation),
    "get": (faiss.DirectMap,),
    "no": (faiss.DirectMap,),
}
READING = (
    _words(
        """
    search range_search search_and_reconstruct search_and_return_codes search_preassigned
    range_search_preassigned reconstruct reconstruct_n reconstruct_batch assign sa_encode sa_decode
    sa_code_size check_compatible_for_merge get_list_size list_size imbalance_factor size at count
    compute_codes decode apply reverse_transform apply_py nb_neighbors cum_nb_neighbors empty is_member
    check_consistency get_final_graph compute_distance_subset get_single_id hashtable_size get no
    neighbor_range compute_distance_tables compute_inner_prod_tables encode_vectors decode_vectors
    train_encoder_num_vectors fast_scan_code_size memory_per_point check_ids_sorted lookup_table_is_3d
    get_numeric_type coarse_code_size
    """
    )
    | gpus.READING
)
# Fields that steer a search or a training, and lead to nothing outside FAISS's arrays at any value.
_TUNED = _words(
    """
    nprobe max_codes parallel_mode verbose efSearch efConstruction bounded_queue check_relative_distance
    search_bounded_queue k_factor search_L search_type do_polysemous_training polysemous_ht
    polysemous_training encode_signs scan_table_threshold max_beam_size max_mem_distances
    use_precomputed_table quantizer_trains_alone clustering_index by_residual rerank_k implem
    niter nredo seed spherical int_centroids update_index frozen_centroids min_points_per_centroid
    max_points_per_centroid decode_block_size check_input_data_for_NaNs use_faster_subsampling
    rowwise_minmax train_type rangestat rangestat_arg eigen_power epsilon balanced_bins random_rotation
    max_train_points niter_pq niter_nn_opt init_nrot S L R gamma niter_iterative use_type2 pseudo_kd
    nflip per_invlist_search threaded successive_ids allow_cpu_coarse_quantizer search_batch_size qb
    centered k_coarse k_factor_rf compute_table_chunk lsq_gpu encode_ils_iters train_ils_iters
    train_iters icm_encoder_factory lambd p random_seed beam_factor max_num_visited_list
    maintain_direct_map keep_max_size_level0 train_exact own_fields own_invlists graph_type nndescent_S
    nndescent_R nndescent_L nndescent_iter store_pairs upper_beam replicate_threshold
    strict_inline_search use_l2_table init_method afkmc2_chain_length early_stop_threshold use_super_kmeans
    use_heap icm_iters nperts update_codebooks_with_double niter_codebook_refine niter_pq_0 max_iter
    max_train_per_dim max_points_per_d n_iter n_redo init_temperature temperature_decay only_bit_flips
    init_random dis_weight_factor optimization_type norm continuous_update
    is_trained d ntotal metric_type metric_arg
    """
)
# They may be set to what they are: another value would lead past the ends of arrays.
_KEPT = frozenset(("is_trained", "d", "ntotal"))
OWNED = frozenset(("own_fields", "own_invlists", "own_refine_index", "own_indices"))
FUNCTIONS = (
    _words(
        """
    index_factory index_binary_factory reverse_index_factory downcast_index downcast_IndexBinary
    downcast_VectorTransform downcast_InvertedLists downcast_Quantizer downcast_AdditiveQuantizer
    extract_index_ivf try_extract_index_ivf clone_index clone_binary_index serialize_index
    serialize_index_binary vector_to_array vector_float_to_array merge_into check_compatible_for_merge
    get_invlist_range set_invlist_range copy_array_to_vector
    search_with_parameters range_search_with_parameters search_centroid search_and_return_centroids
    """
    )
    | gpus.FUNCTIONS
)

# They give an index that is the caller's own, and no part of another.
NEW_BY = (
    frozenset(("index_factory", "index_binary_factory", "clone_index", "clone_binary_index")) | gpus.MOVING
)


@cache
def _class(name: str, of: tuple[type, ...]) -> type | None:
    found = getattr(faiss, name, None)
    if not isinstance(found, type) or not issubclass(found, of) or name in _NEVER_MADE:
        return None
    if issubclass(found, faiss.Cloner):  # it keeps a pointer to what it is made of
        return None
    return found if found.__module__.startswith("faiss") and not name.startswith("_") else None


def made_class(name: str) -> type:
    """The class of that name whose objects may be made here."""
    found = _class(name, MADE)
    if found is None:
        why = f": it {_NEVER_MADE[name]}" if name in _NEVER_MADE else ""
        raise Refused(f"faiss.{name} cannot be made on the server{why}")
    return found


def value_class(name: str) -> type:
    """The class of that name whose objects travel by value, such as search parameters."""
    found = _class(name, _VALUES)
    if found is None:
        raise Refused(f"faiss.{name} cannot be sent to the server")
    return found


def method_of(thing: Any, name: str) -> Callable[..., Any]:
    """The bound method ``name`` of ``thing``."""
    with_arrays = pointing.method_of(thing, name)
    if with_arrays is not None:
        return with_arrays
    is_on_gpu = name in gpus.METHODS and gpus.is_on(thing)
    if name.startswith("_") or not (is_on_gpu or is_offered(type(thing), name)):
        kind = type(thing).__name__
        if hasattr(type(thing), name) and not name.startswith("_"):
            raise Refused(
                f"{kind}.{name} takes or gives memory of this process, and the index is on the server: "
                "fetch it with .to_local()"
            )
        raise AttributeError(f"{kind!r} object has no attribute {name!r}")
    found: Callable[..., Any] = getattr(thing, name)
    return found


def is_offered(the_class: type, name: str) -> bool:
    """Whether FAISS's own method of that name is called from afar, with numbers, arrays and objects."""
    is_wrapped = not name.endswith("_c") and hasattr(the_class, f"{name}_c")
    return is_wrapped or name in _PLAIN or issubclass(the_class, _PLAIN_OF.get(name, ()))


def field_of(thing: Any, name: str) -> Any:
    """The value of the field ``name`` of ``thing``."""
    if name.startswith("_") or not isinstance(getattr(type(thing), name, None), property):
        raise AttributeError(f"{type(thing).__name__!r} object has no attribute {name!r}")
    return getattr(thing, name)


def set_field(thing: Any, name: str, value: Any, *, is_alone: bool = True) -> None:
    """Set a field that steers FAISS. ``is_alone``: no other index relies on how many vectors there are.

    Raises
    ------
    Refused
        The field says how arrays are laid out, or is an object.
    """
    before = field_of(thing, name)
    if isinstance(before, bool | int | float):
        setattr(thing, name, value)  # FAISS says what is wrong with its type
        setattr(thing, name, before)
    elif isinstance(value, bool | int | float | str | Opaque) and (before is None or hasattr(before, "this")):
        setattr(thing, name, value)  # FAISS takes no such thing for an object
    if name in OWNED:
        return  # whoever is referred to is kept alive by references, and never freed by its holder
    if type(value) is type(before) and isinstance(value, bool | int | float | str) and value == before:
        return
    is_tuned = name in _TUNED or isinstance(thing, gpus.SETTINGS)
    if not is_tuned or not isinstance(before, bool | int | float | str):
        raise Refused(
            f"{type(thing).__name__}.{name} cannot be set on a server, for it says how memory is laid out: "
            "fetch the index with .to_local(), change it and send it back"
        )
    is_counted = name == "ntotal" and (is_alone or isinstance(thing, faiss.IndexIVF))  # it has ids of its own
    is_made = value is True if name == "is_trained" else is_counted
    if name in _KEPT and value != before and not (is_made and has_all(thing, name, value)):
        raise Refused(
            f"{type(thing).__name__}.{name} is {before!r} and cannot be set to {value!r} on a server"
        )
    check_effort(name, value)
    setattr(thing, name, value)
    if isinstance(thing, faiss.IndexIVFPQ) and name in ("use_precomputed_table", "by_residual"):
        _tabulate(thing, name, before)


def _tabulate(index: Any, name: str, before: Any) -> None:
    """Make the table that a search would read, or leave all as it was."""
    try:
        if index.use_precomputed_table > 0 and index.by_residual and index.is_trained:
            index.precompute_table()
    except Exception:
        setattr(index, name, before)
        raise
