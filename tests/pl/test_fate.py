

def test_cells_whose_fate_is_uncertain_have_a_ring(cells):
    se = np.zeros(cells.n_obs)
    se[:7] = 0.2
    cells.obs["fate_kind_se"] = se
    ax = tw.pl.fate(cells, "kind", "umap", kind="mixed", show=False)
    (rings,) = [c for c in ax.collections if c.get_label() == "unsure"]
    known = np.isfinite(cells.obsm["fate_kind"].to_numpy()).all(1)[:7].sum()
    assert len(rings.get_offsets()) == known
    assert "unsure" in {t.get_text() for t in ax.get_legend().get_texts()}
    cells.obs["fate_kind_se"] = 0.0
    ax = tw.pl.fate(cells, "kind", "umap", kind="mixed", show=False)
    assert "unsure" not in {t.get_text() for t in ax.get_legend().get_texts()}
