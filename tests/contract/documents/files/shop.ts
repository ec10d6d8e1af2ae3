import { a } from "a";

// Sells things.
export abstract class Shop {
  open = true;

  price(): number {
    return 5;
  }
}

export const visit = async (shop: Shop) => {
  await shop.enter();

  return shop;
};

visit(new Shop());
