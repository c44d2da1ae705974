// Attention in the space of a latent.
//
// Where the keys and values of all heads are expanded from one vector c of a token and one rotary
// key r that all heads share (multi-head latent attention, arXiv 2405.04434, section 2.1),
//
//   k_h = [K_h c, r]    v_h = V_h c
//
// c and r are all that needs to be cached, and the matrices move to the side of the query:
//
//   q_h . k_h           = (K_h' q_h) . c + q_h_rope . r
//   sum over j of p v_h = V_h (sum over j of p c)
//
// The pass finds this by its form, whatever family it comes from:
//
//   k = concat(K c, add(r, zeros [1, H, 1, 1]))     keys = kv_write(k), values = kv_write(V c)
//   K c and V c as slices of the heads of linear(c), or as products with constants
//   [H, R, N] and [H, N, R]
//
// and gives the same graph with one cache row [c, r] per token and one key head:
//
//   attention(concat(q K, q_rope), rows, rows[.., 0 : R]) V'
//
// with constants K' [H, R, N] and V [H, N, R]. Sums are taken in another order than in the graph as
// it was, so plans that are exact keep that one. Attention whose rows would not become fewer values
// stays as it is.
#pragma once

#include "base/status.h"
#include "graph/graph.h"

namespace pome {

// Reads constants that are no more than one value per head.
Result<Graph> attend_to_latents(const Graph& graph);

}  // namespace pome
