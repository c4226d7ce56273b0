/* A table that is sorted by its headers and touched only where something has changed. */

import { cell, element, put } from "./market_common.js";

export class SortedTable {
  /* columns: {title, value(item), text(item), link(item)?, className?(item), number?, descending?};
     key(item): who is who from one update to the next. `sorted` is called after each sort. */
  constructor(table, columns, key, sortBy = 0) {
    this.columns = columns;
    this.key = key;
    this.rows = new Map();
    this.sortBy = sortBy;
    this.descending = Boolean(columns[sortBy].descending);
    this.accepts = () => true;
    this.sorted = () => {};
    const head = element("tr");
    this.heads = columns.map((column, index) => {
      const th = element("th", undefined, column.number ? "mm-number" : "");
      th.scope = "col";
      const button = element("button", column.title, "mm-sort");
      button.type = "button";
      button.addEventListener("click", () => this.sort(index));
      th.append(button);
      head.append(th);
      return th;
    });
    this.body = element("tbody");
    table.replaceChildren(element("thead", head), this.body);
    this.mark();
  }

  sort(index, descending) {
    this.descending = descending ?? (index === this.sortBy ? !this.descending : Boolean(this.columns[index].descending));
    this.sortBy = index;
    this.mark();
    this.order();
    this.sorted();
  }

  mark() {
    this.heads.forEach((th, index) => {
      const sorted = index === this.sortBy ? (this.descending ? "descending" : "ascending") : "none";
      th.setAttribute("aria-sort", sorted);
    });
  }

  update(items) {
    const gone = new Set(this.rows.keys());
    for (const item of items) {
      const key = this.key(item);
      gone.delete(key);
      const entry = this.rows.get(key) ?? this.make(key);
      entry.item = item;
      this.columns.forEach((column, index) => {
        const text = column.text(item);
        const className = `${column.number ? "mm-number " : ""}${column.className?.(item) ?? ""}`;
        const href = column.link?.(item);
        const box = entry.boxes[index];
        if (box.text === text && box.className === className && box.href === href) return;
        Object.assign(box, { text, className, href });
        let content = text;
        if (href) {
          content = element("a", text);
          content.href = href;
        }
        put(box.cell, content);
        box.cell.className = className;
      });
    }
    for (const key of gone) {
      this.rows.get(key).row.remove();
      this.rows.delete(key);
    }
    this.order();
    return this.filter(this.accepts);
  }

  make(key) {
    const boxes = this.columns.map(() => ({ cell: cell("") }));
    const made = element("tr");
    made.append(...boxes.map((box) => box.cell));
    const entry = { row: made, boxes };
    this.rows.set(key, entry);
    return entry;
  }

  order() {
    const { value } = this.columns[this.sortBy];
    const sign = this.descending ? -1 : 1;
    const compare = (one, other) => {
      const [a, b] = [value(one.item), value(other.item)];
      // What has no value comes last, whichever way round.
      if (a === null || b === null) return (a === null) - (b === null);
      return (a < b ? -1 : a > b ? 1 : 0) * sign;
    };
    const byKey = (one, other) => (this.key(one.item) < this.key(other.item) ? -1 : 1);
    const sorted = [...this.rows.values()].sort((one, other) => compare(one, other) || byKey(one, other));
    if (sorted.some((entry, index) => this.body.children[index] !== entry.row)) {
      const focused = document.activeElement;
      this.body.append(...sorted.map((entry) => entry.row));
      if (this.body.contains(focused)) focused.focus({ preventScroll: true });
    }
  }

  /* Shows what `accepts` an item; how many those are. */
  filter(accepts) {
    this.accepts = accepts;
    let shown = 0;
    for (const { row, item } of this.rows.values()) {
      const hidden = !accepts(item);
      if (row.hidden !== hidden) row.hidden = hidden;
      shown += !hidden;
    }
    return shown;
  }
}
