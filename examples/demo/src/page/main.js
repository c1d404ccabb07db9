// The page's start: each module wires its own panel.

import "/stampede.js";
import "/race.js";
import "/near.js";
import "/live.js";
import { listProducts } from "/product.js";
import { byId, say } from "/view.js";

listProducts().catch((error) => say(byId("message"), error.message, "bad"));
